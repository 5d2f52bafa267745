"""What a made-up shop sells: departments with their kinds of things, attributes, options and prices."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Department:
    """One of the shop's departments."""

    root: str
    """First step of its products' categories."""
    kinds: dict[str, tuple[str, ...]]
    """Second step -> what is sold there, as people ask for it."""
    attributes: tuple[str, ...]
    """No two of them count as the same."""
    options: dict[str, tuple[str, ...]]
    """Name -> values. No two values of an option count as the same."""
    prices: tuple[int, int]
    """Dollars, lowest and highest."""


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


_COLOURS = _listed(
    "black, white, red, blue, green, yellow, pink, purple, orange, brown, grey, beige, navy, teal, maroon, olive"
)

DEPARTMENTS = {
    "beauty": Department(
        root="Beauty & Personal Care",
        kinds={
            "Hair Care": _listed("shampoo, conditioner, hair mask, hair oil, hair brush, hair dye"),
            "Skin Care": _listed("body lotion, face cream, facial cleanser, lip balm, sunscreen, hand soap"),
            "Makeup": _listed("lipstick, mascara, eyeliner, nail polish, makeup remover, setting powder"),
        },
        attributes=_listed(
            "cruelty free, sulfate free, paraben free, tea tree, coconut oil, argan oil, hyaluronic acid, vitamin c, "
            "sensitive skin, dry scalp, damaged ends, long lasting, easy rinse, travel bottle, salon grade, vegan, "
            "fine mist, anti aging, plant extract, dermatologist tested, fragrance allergen tested, matte finish"
        ),
        options={
            "scent": _listed("lavender, citrus, vanilla, rose, mint, ocean breeze, sandalwood, unscented"),
            "size": _listed("2 fl oz, 4.5 ounces, 8 fluid oz, 250 ml, 1 liter"),
        },
        prices=(5, 60),
    ),
    "electronics": Department(
        root="Electronics",
        kinds={
            "Audio": _listed("headphones, bluetooth speaker, soundbar, microphone, turntable, earbuds"),
            "Computers": _listed("keyboard, mouse, monitor stand, webcam, usb hub, laptop sleeve"),
            "Photo & Video": _listed("tripod, ring light, camera bag, projector, hdmi cable, action camera"),
        },
        attributes=_listed(
            "noise cancelling, fast charging, plug and play, gold plated, water resistant, voice control, low latency, "
            "high definition, carrying case, hands free, backlit, energy saving, aluminum alloy, quick release, "
            "dust proof, foldable, wall mountable, dual band, motion sensor, remote control, tangle free"
        ),
        options={
            "color": _COLOURS[:10],
            "style": _listed("basic, deluxe edition, bundle, refurbished, gaming"),
            "capacity": _listed("16gb, 64gb, 256gb, 1tb"),
        },
        prices=(10, 300),
    ),
    "fashion": Department(
        root="Clothing, Shoes & Jewelry",
        kinds={
            "Women": _listed("summer dress, blouse, leggings, ankle boots, pumps, cardigan, swimsuit"),
            "Men": _listed("polo shirt, cargo shorts, loafers, hoodie, rain jacket, running shoes"),
            "Accessories": _listed("leather belt, wool scarf, sun hat, backpack, wallet, gloves"),
        },
        attributes=_listed(
            "machine washable, long sleeve, slim fit, elastic waist, rubber sole, memory foam, moisture wicking, "
            "quick drying, faux leather, hidden pocket, drawstring closure, high waist, tummy support, slip resistant, "
            "light weight, button down, crew neck, hand knitted, uv protection, arch support, organic cotton"
        ),
        options={
            "color": _COLOURS,
            "size": _listed("xs, s, m, l, xl, 2x, 40 tall, 38 short"),
        },
        prices=(8, 140),
    ),
    "garden": Department(
        root="Home & Kitchen",
        kinds={
            "Furniture": _listed("console table, bookcase, bar stool, bed frame, office chair, ottoman"),
            "Bedding": _listed("duvet cover, throw pillow, mattress topper, weighted blanket, bed sheets, quilt"),
            "Decor": _listed("area rug, table lamp, wall clock, curtains, picture frame, vase"),
        },
        attributes=_listed(
            "solid wood, easy assembly, stain resistant, space saving, mid century, non slip, hand painted, blackout, "
            "heavy duty, eco friendly, adjustable height, storage drawer, steel legs, spot clean, hypoallergenic, "
            "fade proof, tempered glass, double sided, energy efficient, child safe, rust proof, velvet upholstery"
        ),
        options={
            "color": _COLOURS[:12],
            "size": _listed("twin, full, queen, king, 24 x 36 inch, 5 feet round"),
        },
        prices=(15, 600),
    ),
    "grocery": Department(
        root="Grocery & Gourmet Food",
        kinds={
            "Snacks": _listed("protein bars, trail mix, popcorn, crackers, beef jerky, dried fruit"),
            "Beverages": _listed("green tea, ground coffee, coconut water, hot chocolate, lemonade mix, kombucha"),
            "Pantry": _listed("pasta sauce, olive oil, peanut butter, granola, hot sauce, instant noodles"),
        },
        attributes=_listed(
            "gluten free, sugar free, non gmo, keto friendly, plant based, dairy free, high protein, low sodium, "
            "kosher, usda organic, fat free, nut free, artificial colors free, family owned, ready to eat, "
            "freeze dried, fair trade, caffeine free, stone ground, resealable bag, small batch, whole grain"
        ),
        options={
            "flavor name": _listed("original, honey, spicy, sea salt, dark cocoa, strawberry, garlic, maple"),
            "size": _listed("6 count, 12 pack, 1 pound, 5 oz, family box"),
        },
        prices=(3, 50),
    ),
}

BRANDS = tuple(
    start + end
    for start in _listed(
        "Vel, Nor, Cal, Bri, Dru, Fen, Gal, Hol, Jun, Kor, Lum, Mar, Pel, Quin, Ros, Sil, Tor, Ul, Wes, Zan"
    )
    for end in _listed("mora, dane, vista, lo, ria, beck, tine, wood, quest, field, ano, ista")
)
"""Made up: none is anybody's."""
LINES = _listed(
    "Essentials, Studio, Classic, Prime, Urban, Heritage, Nova, Comfort, Select, Everyday, Signature, Alpine"
)
"""What a brand calls its series."""
PRAISE = _listed(
    "Does what it says, Better than expected, Good value, Not for me, Arrived quickly, Would buy again, "
    "Looks like the picture, Smaller than I thought, A gift that was liked, Fine for the price"
)
