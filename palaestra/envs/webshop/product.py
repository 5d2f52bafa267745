"""A product, as WebShop's data describes one."""

from __future__ import annotations

import random

import msgspec

from palaestra.seeds import derive_seed

NO_PRICE = 100.0
"""Dollars, where the data has no price."""


class Review(msgspec.Struct, frozen=True, gc=False):
    """What a buyer wrote."""

    title: str = ""
    score: str = ""
    """Stars, of 5."""
    body: str = ""


class Product(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What can be bought."""

    asin: str
    """Its number: at most ten letters and digits, upper case."""
    name: str
    """Its title."""
    category: str = ""
    """The department: `fashion`."""
    query: str = ""
    """What people look for who want such a thing, lower case: `women's pumps`."""
    product_category: str = ""
    """The path in the shop's tree of categories, with a ` › ` between steps."""
    attributes: tuple[str, ...] = ()
    """Lower case. The visitor does not see them as such."""
    options: dict[str, tuple[str, ...]] = {}
    """Name of an option -> values to choose from, lower case."""
    description: str = ""
    bullets: tuple[str, ...] = ()
    """Its features, a sentence each."""
    pricing: tuple[float, ...] = ()
    """Dollars: nothing, the price, or the lowest and the highest of a range."""
    rating: str = "N.A."
    reviews: tuple[Review, ...] = ()

    @property
    def price(self) -> float:
        """Dollars that it costs: of a range somewhere within, the same every time."""
        if len(self.pricing) < 2:
            return self.pricing[0] if self.pricing else NO_PRICE
        return random.Random(derive_seed(0, "price", self.asin)).uniform(*self.pricing[:2])

    @property
    def price_tag(self) -> str:
        """What the pages say it costs."""
        return " to ".join(f"${price}" for price in self.pricing[:2] or (NO_PRICE,))

    @property
    def text(self) -> str:
        """Everything about it that a search looks at, beside its title."""
        values = (value for values in self.options.values() for value in values)
        return " ".join((self.description, *self.bullets, *values))
