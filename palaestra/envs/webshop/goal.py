"""What a visitor is to buy, and how the instruction says it."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import msgspec

from palaestra.envs.webshop.product import Product

NO_LIMIT = 1_000_000.0
"""Dollars, where the instruction names no limit."""
_LIMITS = [10.0 * i for i in range(1, 100)]
_PRICE_CLAUSE = re.compile(r",? and price lower than [\d.]+ dollars$")


class Goal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A purchase that is wanted. The visitor reads the instruction; the reward looks at the rest."""

    asin: str
    """A product that meets it. Others may."""
    category: str
    query: str
    name: str
    product_category: str
    instruction: str
    attributes: tuple[str, ...]
    """At least one."""
    options: tuple[str, ...]
    """Values of options that are to be chosen."""
    price_upper: float
    """Most dollars that it may cost."""

    @property
    def wish(self) -> str:
        """The instruction without its limit of price."""
        return _PRICE_CLAUSE.sub("", self.instruction)


def make_goal(
    product: Product, instruction: str, attributes: Sequence[str], options: Sequence[str], generator: random.Random
) -> Goal:
    """The goal to buy `product` or its like; a limit of price is drawn and told at the end of the instruction.

    As in the released code, the limit is one of the next four multiples of ten dollars above the price, and products
    of $980 and more have none.
    """
    upper, price = NO_LIMIT, product.price
    limits = [limit for limit in _LIMITS if limit > price][:4]
    if len(limits) >= 2:
        upper = max(generator.sample(limits, 2))
        instruction += f", and price lower than {upper:.2f} dollars"
    return Goal(
        asin=product.asin,
        category=product.category,
        query=product.query,
        name=product.name,
        product_category=product.product_category,
        instruction=instruction,
        attributes=tuple(attributes),
        options=tuple(options),
        price_upper=upper,
    )
