"""Colours that count as the same: an option's value is reduced to the first of these words that occurs in it.

The words are those of WebShop's released code (MIT), in its order, because the reward depends on them.
"""

_WORDS = """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo
caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal dark
denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory ivy
khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom
mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire seashell
silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white wine yellow
"""
COLOURS = tuple(_WORDS.split())


def plain_colour(value: str) -> str:
    """`light red plaid` -> `light`; what has no colour in it stays as it is."""
    return next((colour for colour in COLOURS if colour in value), value)
