"""The pages as text, in the two forms of the released code.

`text` has the visible texts of a page with `[SEP]` between. `rich` has a line each, marks what can be clicked, and
what was: `[button] black [button_]`, `[clicked button] black [clicked button_]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from palaestra.envs.webshop.product import Product
from palaestra.envs.webshop.shop import Shop
from palaestra.envs.webshop.view import BACK, BUY, DETAILS, NEXT, PER_PAGE, PREVIOUS, View, on_page
from palaestra.errors import UnknownNameError

Form = Literal["text", "rich"]
FORMS: tuple[Form, ...] = ("text", "rich")

Piece = tuple[Literal["plain", "button", "clicked"], str]


def check_form(name: object) -> Form:
    """`name` itself.

    Raises:
        UnknownNameError: there is no such form.
    """
    for form in FORMS:
        if form == name:
            return form
    raise UnknownNameError("observation of webshop", str(name)[:80], FORMS)


def show(view: View, shop: Shop, instruction: str, form: Form, reward: float = 0.0) -> str:
    """The page that `view` is at."""
    pieces = _PAGES[view.page](view, shop)
    if view.page == "search":
        pieces[1:1] = _plain("Instruction:", instruction)
    elif view.page == "done":
        pieces += _plain(str(reward))
    else:
        pieces[:0] = _plain("Instruction:", instruction)
    if form == "text":
        return " [SEP] ".join(text for _, text in pieces)
    return "\n".join(text if style == "plain" else _marked(style, text) for style, text in pieces)


def _marked(style: str, text: str) -> str:
    mark = "button" if style == "button" else "clicked button"
    return f"[{mark}] {text} [{mark}_]"


def _plain(*texts: str) -> list[Piece]:
    return [("plain", text) for text in texts]


def _search(view: View, shop: Shop) -> list[Piece]:
    return [("plain", "WebShop"), ("button", "Search")]


def _results(view: View, shop: Shop) -> list[Piece]:
    total = len(shop.search(view.query))
    pieces: list[Piece] = [("button", BACK), ("plain", f"Page {view.number} (Total results: {total})")]
    if view.number > 1:
        pieces.append(("button", PREVIOUS))
    if view.number * PER_PAGE < total:
        pieces.append(("button", NEXT))
    for asin in on_page(view, shop):
        product = shop.find(asin)
        pieces.append(("clicked" if asin in view.visited else "button", asin))
        pieces += _plain(product.name, product.price_tag)
    return pieces


def _item(view: View, shop: Shop) -> list[Piece]:
    product, chosen = shop.find(view.asin), set(view.options)
    pieces: list[Piece] = [("button", BACK), ("button", PREVIOUS)]
    for name, values in product.options.items():
        pieces += _plain(name)
        pieces += [("clicked" if (name, value) in chosen else "button", value) for value in values]
    pieces += _plain(product.name, f"Price: {product.price_tag}", f"Rating: {product.rating}")
    pieces += [("button", text) for text in (*DETAILS, BUY)]
    return pieces


def _detail(view: View, shop: Shop) -> list[Piece]:
    return [("button", BACK), ("button", PREVIOUS), *_plain(*_READ[view.detail](shop.find(view.asin)))]


def _reviews(product: Product) -> list[str]:
    texts = [text for one in product.reviews for text in (f'"{one.title}"', one.score, one.body)]
    return texts or ["No reviews found"]


_READ: dict[str, Callable[[Product], list[str]]] = {
    "Description": lambda product: [product.description],
    "Features": lambda product: list(product.bullets),
    "Reviews": _reviews,
}


def _done(view: View, shop: Shop) -> list[Piece]:
    return _plain("Thank you for shopping with us!", "Your score (min 0.0, max 1.0)")


_PAGES: dict[str, Callable[[View, Shop], list[Piece]]] = {
    "search": _search,
    "results": _results,
    "item": _item,
    "detail": _detail,
    "done": _done,
}
