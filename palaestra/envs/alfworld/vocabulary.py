"""What a household holds: object and receptacle types, what fits where, what can be done to what, and the rooms.

Facts of ALFRED (Shridhar et al., 2020, MIT licence) and of ALFWorld's text games (Shridhar et al., 2021), written down
as data: which object fits which receptacle, the affordances, and how many receptacles of each type its 120 scenes have.
Names are ALFRED's types; a game shows them in lower case with a number, "countertop 2".
"""

from __future__ import annotations


def _ordered(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _words(text: str) -> frozenset[str]:
    return frozenset(_ordered(text))


_TABLE = _words(
    "AlarmClock Apple AppleSliced BaseballBat BasketBall Book Bowl Box Bread BreadSliced ButterKnife CD Candle "
    "CellPhone Cloth CreditCard Cup DeskLamp DishSponge Egg FloorLamp Fork Glassbottle HandTowel Kettle KeyChain "
    "Knife Ladle Laptop Lettuce LettuceSliced Mug Newspaper Pan PaperTowel Pen Pencil PepperShaker Plate Pot Potato "
    "PotatoSliced RemoteControl SaltShaker SoapBar SoapBottle Spatula Spoon SprayBottle Statue TennisRacket "
    "TissueBox ToiletPaper ToiletPaperRoll Tomato TomatoSliced Vase Watch WateringCan WineBottle"
)
_SEAT = _words("BasketBall Book Box CellPhone Cloth CreditCard KeyChain Laptop Newspaper Pillow RemoteControl")
_CHEST = _words(
    "AlarmClock BasketBall Book Bowl Box CD Candle CellPhone Cloth CreditCard Cup DeskLamp Glassbottle KeyChain "
    "Laptop Mug Newspaper Pen Pencil Plate RemoteControl SprayBottle Statue TennisRacket TissueBox ToiletPaper "
    "ToiletPaperRoll Vase Watch WateringCan WineBottle"
)

FITS: dict[str, frozenset[str]] = {
    "ArmChair": _SEAT,
    "BathtubBasin": _words("Cloth DishSponge HandTowel SoapBar"),
    "Bed": _words("BaseballBat BasketBall Book CellPhone Laptop Newspaper Pillow TennisRacket"),
    "Cabinet": _words(
        "Book Bowl Box CD Candle Cloth Cup DishSponge Glassbottle HandTowel Kettle Ladle Mug Newspaper Pan "
        "PepperShaker Plate Plunger Pot SaltShaker SoapBar SoapBottle SprayBottle TissueBox ToiletPaper "
        "ToiletPaperRoll Vase WateringCan WineBottle"
    ),
    "Cart": _words(
        "Candle Cloth DishSponge HandTowel Mug PaperTowel Plunger SoapBar SoapBottle SprayBottle Statue TissueBox "
        "ToiletPaper ToiletPaperRoll Vase"
    ),
    "CoffeeMachine": _words("Mug"),
    "CoffeeTable": _TABLE,
    "CounterTop": _TABLE,
    "Desk": _CHEST | {"SoapBottle"},
    "DiningTable": _TABLE,
    "Drawer": _words(
        "Book ButterKnife CD Candle CellPhone Cloth CreditCard DishSponge Fork HandTowel KeyChain Knife Ladle "
        "Newspaper Pen Pencil PepperShaker RemoteControl SaltShaker SoapBar SoapBottle Spatula Spoon SprayBottle "
        "TissueBox ToiletPaper ToiletPaperRoll Watch WateringCan"
    ),
    "Dresser": _CHEST,
    "Fridge": _words(
        "Apple AppleSliced Bowl Bread BreadSliced Cup Egg Glassbottle Lettuce LettuceSliced Mug Pan Plate Pot Potato "
        "PotatoSliced Tomato TomatoSliced WineBottle"
    ),
    "GarbageCan": _words(
        "Apple AppleSliced Bread BreadSliced CD Cloth DishSponge Egg HandTowel Lettuce LettuceSliced Newspaper "
        "PaperTowel Pen Pencil Potato PotatoSliced SoapBar SoapBottle SprayBottle TissueBox ToiletPaper "
        "ToiletPaperRoll Tomato TomatoSliced WineBottle"
    ),
    "HandTowelHolder": _words("HandTowel"),
    "LaundryHamper": _words("Cloth"),
    "Microwave": _words(
        "Apple AppleSliced Bowl Bread BreadSliced Cup Egg Glassbottle Mug Plate Potato PotatoSliced Tomato TomatoSliced"
    ),
    "Ottoman": _SEAT,
    "Safe": _words("CD CellPhone CreditCard KeyChain Statue Vase Watch"),
    "Shelf": _words(
        "AlarmClock Book Bowl Box CD Candle CellPhone Cloth CreditCard Cup DeskLamp DishSponge Glassbottle HandTowel "
        "Kettle KeyChain Mug Newspaper PaperTowel Pen Pencil PepperShaker Plate Pot RemoteControl SaltShaker SoapBar "
        "SoapBottle SprayBottle Statue TissueBox ToiletPaper ToiletPaperRoll Vase Watch WateringCan WineBottle"
    ),
    "SideTable": _TABLE,
    "SinkBasin": _words(
        "Apple AppleSliced Bowl ButterKnife Cloth Cup DishSponge Egg Fork Glassbottle HandTowel Kettle Knife Ladle "
        "Lettuce LettuceSliced Mug Pan Plate Pot Potato PotatoSliced SoapBar Spatula Spoon Tomato TomatoSliced"
    ),
    "Sofa": _SEAT,
    "StoveBurner": _words("Kettle Pan Pot"),
    "TVStand": _words("TissueBox"),
    "Toaster": _words("BreadSliced"),
    "Toilet": _words(
        "Candle Cloth DishSponge HandTowel Newspaper PaperTowel SoapBar SoapBottle SprayBottle TissueBox ToiletPaper "
        "ToiletPaperRoll"
    ),
    "ToiletPaperHanger": _words("ToiletPaper ToiletPaperRoll"),
    "TowelHolder": _words("Towel"),
}
"""Receptacle type -> the object types that it may hold. Lamps stand on furniture from the start and are never moved."""

OPENABLE = _words("Cabinet Drawer Fridge Microwave Safe")
LAMPS = _words("DeskLamp FloorLamp")
SLICEABLE = _words("Apple Bread Egg Lettuce Potato Tomato")
KNIVES = _words("ButterKnife Knife")
HEATABLE = _words("Apple AppleSliced Bread BreadSliced Cup Egg Mug Plate Potato PotatoSliced Tomato TomatoSliced")
COOLABLE = _words(
    "Apple AppleSliced Bowl Bread BreadSliced Cup Egg Lettuce LettuceSliced Mug Pan Plate Pot Potato PotatoSliced "
    "Tomato TomatoSliced WineBottle"
)
CLEANABLE = _words(
    "Apple AppleSliced Bowl ButterKnife Cloth Cup DishSponge Egg Fork Kettle Knife Ladle Lettuce LettuceSliced Mug "
    "Pan Plate Pot Potato PotatoSliced SoapBar Spatula Spoon Tomato TomatoSliced"
)
APPLIANCE = {"heat": "Microwave", "cool": "Fridge", "clean": "SinkBasin"}
"""Verb that changes what is held -> receptacle type where it works."""
AFFORDS = {"heat": HEATABLE, "cool": COOLABLE, "clean": CLEANABLE}
"""Verb that changes what is held -> object types that it works on."""

ROOMS: dict[str, dict[str, tuple[float, int, int]]] = {
    "kitchen": {
        "CounterTop": (1, 1, 4),
        "Fridge": (1, 1, 1),
        "Microwave": (1, 1, 1),
        "SinkBasin": (1, 1, 1),
        "Cabinet": (1, 2, 20),
        "Drawer": (0.83, 1, 12),
        "StoveBurner": (1, 2, 4),
        "CoffeeMachine": (1, 1, 1),
        "Toaster": (1, 1, 1),
        "GarbageCan": (1, 1, 1),
        "DiningTable": (0.53, 1, 2),
        "Shelf": (0.17, 2, 3),
        "SideTable": (0.1, 1, 1),
        "Safe": (0.03, 1, 1),
    },
    "living room": {
        "Sofa": (1, 1, 2),
        "ArmChair": (0.9, 1, 3),
        "CoffeeTable": (0.83, 1, 2),
        "SideTable": (0.8, 1, 4),
        "Drawer": (0.77, 1, 10),
        "GarbageCan": (1, 1, 1),
        "DiningTable": (0.47, 1, 2),
        "Shelf": (0.4, 1, 12),
        "TVStand": (0.4, 1, 2),
        "Dresser": (0.33, 1, 2),
        "Ottoman": (0.1, 1, 1),
        "Cabinet": (0.1, 4, 8),
        "Safe": (0.07, 1, 1),
        "Desk": (0.03, 1, 1),
    },
    "bedroom": {
        "Bed": (1, 1, 2),
        "Drawer": (0.93, 1, 12),
        "Desk": (0.63, 1, 2),
        "SideTable": (0.63, 1, 2),
        "Shelf": (0.63, 1, 10),
        "Dresser": (0.5, 1, 2),
        "GarbageCan": (1, 1, 1),
        "ArmChair": (0.2, 1, 3),
        "LaundryHamper": (0.27, 1, 1),
        "Cabinet": (0.17, 1, 4),
        "DiningTable": (0.17, 1, 1),
        "Safe": (0.13, 1, 1),
    },
    "bathroom": {
        "Toilet": (1, 1, 1),
        "SinkBasin": (1, 1, 2),
        "GarbageCan": (1, 1, 1),
        "CounterTop": (0.83, 1, 2),
        "Cabinet": (0.5, 2, 8),
        "Drawer": (0.37, 1, 8),
        "BathtubBasin": (0.7, 1, 1),
        "HandTowelHolder": (1, 1, 2),
        "TowelHolder": (1, 1, 2),
        "ToiletPaperHanger": (1, 1, 1),
        "Shelf": (0.17, 1, 4),
        "Cart": (0.07, 1, 1),
        "SideTable": (0.07, 1, 1),
        "Dresser": (0.07, 1, 1),
    },
}
"""Room -> receptacle type -> (share of ALFRED's scenes that have it, fewest, most)."""

ROOM_OBJECTS: dict[str, tuple[str, ...]] = {
    "kitchen": _ordered(
        "Apple Bowl Bread ButterKnife Cup DishSponge Egg Fork Glassbottle Kettle Knife Ladle Lettuce Mug Pan "
        "PepperShaker Plate Pot Potato SaltShaker SoapBottle Spatula Spoon Tomato Vase WineBottle CreditCard Book"
    ),
    "living room": _ordered(
        "Book Box CellPhone CreditCard KeyChain Laptop Newspaper Pillow RemoteControl Statue Vase Watch TissueBox "
        "WateringCan Plate Bowl Pen Pencil Candle"
    ),
    "bedroom": _ordered(
        "AlarmClock BaseballBat BasketBall Book Bowl Box CD CellPhone Cloth CreditCard KeyChain Laptop Mug Pen "
        "Pencil Pillow TennisRacket Vase Watch TissueBox"
    ),
    "bathroom": _ordered(
        "Candle Cloth HandTowel SoapBar SoapBottle SprayBottle ToiletPaper Towel TissueBox Plunger DishSponge"
    ),
}
"""Room -> object types that its scenes hold."""

OBJECT_TYPES = tuple(sorted(frozenset().union(*FITS.values()) | LAMPS))
RECEPTACLE_TYPES = tuple(sorted(FITS))
SPOKEN = {name: name.lower() for name in (*OBJECT_TYPES, *RECEPTACLE_TYPES)}
"""Type -> the word that texts use for it."""
BY_WORD = {word: name for name, word in SPOKEN.items()}
"""The reverse of `SPOKEN`."""
