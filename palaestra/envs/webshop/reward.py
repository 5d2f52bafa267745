"""The paper's reward: how well a purchase meets a goal, from 0 to 1.

With the goal's attributes A, options O and highest price (Yao et al., 2022, section 3.3):

    reward = type * (attributes of A that the product has + options of O that were chosen + [price in limit])
                  / (|A| + |O| + 1)

Rules of matching are those of the released code, but for titles: it compares their nouns, found by a language model
that Palaestra does not need; here all words of a title count that are not function words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from palaestra.envs.webshop.colours import plain_colour
from palaestra.envs.webshop.goal import Goal
from palaestra.envs.webshop.product import Product
from palaestra.errors import require

ALIKE = 85
"""Two texts are the same from above this score on, of 100."""
NO_WORDS = 0.2
"""Likeness to a title that has no words."""
_WORD = re.compile(r"[^\W\d_]{2,}")
_IDLE_WORDS = """
a about all an and any are as at by do each every for from has have if in into is it its more new no non not of
off on one only or other our out over per plus so some such than that the their them these this those to too two
under up use very via was we who will with within without you your
"""
_FUNCTION_WORDS = frozenset(_IDLE_WORDS.split())


class Parts(NamedTuple):
    """A reward and what it is made of."""

    type: float
    """Whether it is such a thing at all: 1, 0.5, 0.1 or 0."""
    attributes: int
    """How many of the goal's the product has."""
    options: int
    """How many of the goal's were chosen."""
    price: bool
    """Whether it costs no more than it may."""
    total: float
    """The reward."""


def grade(product: Product, goal: Goal, chosen: Iterable[str]) -> Parts:
    """Grade the purchase of `product` with the `chosen` values of its options.

    Raises:
        MissingExtraError: rapidfuzz is not installed.
    """
    kind, attributes = type_score(product, goal), count_attributes(product, goal.attributes)
    options, price = count_options(tuple(chosen), goal.options), product.price <= goal.price_upper
    share = (attributes + options + price) / (len(goal.attributes) + len(goal.options) + 1)
    return Parts(kind, attributes, options, price, kind * share)


def type_score(product: Product, goal: Goal) -> float:
    """1 for the same query, two common steps of category or a title that is somewhat alike; less for foreign titles."""
    title = title_likeness(product.name, goal.name)
    if title < 0.1:
        return 0.1 if title else 0.0
    same_category = len(_steps(product.product_category) & _steps(goal.product_category)) >= 2
    return 1.0 if product.query == goal.query or same_category or title > 0.2 else 0.5


def title_likeness(bought: str, wanted: str) -> float:
    """Different words that the titles share, over all words of the wanted one."""
    words = title_words(wanted)
    return len(set(words) & set(title_words(bought))) / len(words) if words else NO_WORDS


@lru_cache(4096)
def title_words(title: str) -> tuple[str, ...]:
    """The words of a title that tell what it is, lower case, in order."""
    return tuple(word for word in _WORD.findall(title.lower()) if word not in _FUNCTION_WORDS)


def count_attributes(product: Product, wanted: Iterable[str]) -> int:
    """How many of the `wanted` the product has as an attribute, or says somewhere in its texts."""
    texts = (product.name.lower(), " ".join(product.bullets).lower(), product.description.lower())
    return sum(
        any(alike(own, attribute) for own in product.attributes) or any(attribute in text for text in texts)
        for attribute in wanted
    )


def count_options(chosen: Iterable[str], wanted: Iterable[str]) -> int:
    """How many of the `wanted` values are like one of the `chosen`."""
    own = [plain_colour(value) for value in chosen]
    return sum(any(alike(value, plain_colour(option)) for value in own) for option in wanted)


@lru_cache(1 << 16)
def alike(one: str, other: str) -> bool:
    """Whether two texts have much the same words, whatever their order: `fuzz.token_set_ratio` above 85."""
    return round(_ratio()(_ascii(one), _ascii(other))) > ALIKE


@lru_cache(1)
def _ratio() -> Callable[[str, str], float]:
    require("rapidfuzz", "webshop")
    from rapidfuzz import fuzz, utils

    def ratio(one: str, other: str) -> Any:
        return fuzz.token_set_ratio(one, other, processor=utils.default_process)

    return ratio


def _ascii(text: str) -> str:
    return text.encode("ascii", "ignore").decode()


def _steps(category: str) -> set[str]:
    return {step.strip() for step in category.split("›")}
