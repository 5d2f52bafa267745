"""The records of WebShop's files, as loosely typed as they are, and what is made of them."""

from __future__ import annotations

import math
import re

import msgspec

from palaestra.envs.webshop.product import Product, Review

LONGEST = 20_000
"""Characters of a text; the rest is cut off."""
MOST_PARTS = 200
"""Options of a product, values of an option, features, reviews, attributes; further ones are left out."""
_ASIN = re.compile(r"[0-9A-Z]{1,10}")
_AMOUNT = re.compile(r"\d+(?:\.\d+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


class Wish(msgspec.Struct, frozen=True, gc=False):
    """What the files know of an instruction."""

    attributes: list[str] = []
    """Of the product."""
    instruction: str | None = None
    instruction_attributes: list[str] = []
    """Those that the instruction wants."""
    instruction_options: list[str] = []
    """Values of options that a person's instruction wants."""


class OptionValue(msgspec.Struct, frozen=True, gc=False):
    """A value that can be chosen."""

    value: str = ""


class StoredReview(msgspec.Struct, frozen=True, gc=False):
    """A review, under any of the names that the files give its parts."""

    title: str | None = None
    score: str | float | None = None
    stars: str | float | None = None
    body: str | None = None
    review: str | None = None


class Item(msgspec.Struct, frozen=True):
    """A product as a file has it; what else stands there is passed over."""

    asin: str
    name: str | None = None
    category: str | None = None
    query: str | None = None
    product_category: str | None = None
    full_description: str | None = None
    small_description: list[str | None] | str | None = None
    pricing: list[float] | str | None = None
    options: dict[str, list[str]] | None = None
    """Of cleaned products."""
    customization_options: dict[str, list[OptionValue] | None] | str | None = None
    """Of WebShop's own files; an empty string if there are none."""
    average_rating: float | str | None = None
    attributes: list[str] = msgspec.field(default_factory=list, name="Attributes")
    reviews: list[StoredReview] = msgspec.field(default_factory=list, name="Reviews")

    def product(self, attributes: list[str]) -> Product | None:
        """The product, with `attributes` where the item has none of its own; `None` if it has no proper number."""
        asin = self.asin.strip().upper()
        if not _ASIN.fullmatch(asin) or asin == "NAN":
            return None
        bullets = self.small_description if isinstance(self.small_description, list) else [self.small_description]
        return Product(
            asin=asin,
            name=clean(self.name or ""),
            category=clean(self.category or ""),
            query=clean(self.query or "").lower(),
            product_category=clean(self.product_category or ""),
            attributes=_texts(self.attributes or attributes),
            options=self._options(),
            description=clean(self.full_description or ""),
            bullets=_texts(bullets),
            pricing=_prices(self.pricing),
            rating=clean(str(self.average_rating or "N.A.")),
            reviews=tuple(map(_review, self.reviews[:MOST_PARTS])),
        )

    def _options(self) -> dict[str, tuple[str, ...]]:
        if self.options is not None:
            listed = self.options
        elif isinstance(self.customization_options, dict):
            listed = {name: [one.value for one in ones or ()] for name, ones in self.customization_options.items()}
        else:
            return {}
        options = {}
        for name, values in list(listed.items())[:MOST_PARTS]:
            # A slash would end a web page's address; the released code writes a bar instead.
            kept = _texts([value.replace("/", " | ").lower() for value in values])
            if kept:
                options[clean(name).lower()] = kept
        return options


def clean(text: str) -> str:
    """`text` without control characters, with single spaces, and not too long."""
    return " ".join(_CONTROL.sub(" ", text[:LONGEST]).split())


def _texts(texts: list[str | None] | list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in (clean(one or "") for one in texts[:MOST_PARTS]) if text))


def _prices(pricing: list[float] | str | None) -> tuple[float, ...]:
    """`"$1,299.00$1,499.00"` -> `(1299.0, 1499.0)`."""
    if isinstance(pricing, str):
        amounts = (_AMOUNT.search(part.replace(",", "")) for part in pricing.split("$")[1:])
        pricing = [float(amount[0]) for amount in amounts if amount is not None]
    prices = [price for price in (pricing or [])[:2] if math.isfinite(price) and price >= 0]
    return tuple(sorted(prices))


def _review(review: StoredReview) -> Review:
    score = review.score if review.score is not None else review.stars
    return Review(clean(review.title or ""), clean(str(score or "")), clean(review.body or review.review or ""))
