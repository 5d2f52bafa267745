"""Where in the shop a visitor is, what can be clicked there, and where that leads."""

from __future__ import annotations

from typing import Literal, NamedTuple

from palaestra.envs.webshop.shop import Shop

PER_PAGE = 10
"""Results on a page."""
BACK, NEXT, PREVIOUS, BUY = "Back to Search", "Next >", "< Prev", "Buy Now"
DETAILS = ("Description", "Features", "Reviews")

Button = tuple[Literal["button", "product", "option"], str, str]
"""What kind it is, its text, and the name of the option, if it is a value of one."""


class View(NamedTuple):
    """A page, and what was done that it depends on. Immutable: it is the whole state of a visit."""

    page: Literal["search", "results", "item", "detail", "done"] = "search"
    query: str = ""
    """What was searched last."""
    number: int = 1
    """Of the page of results."""
    asin: str = ""
    """The product that is looked at."""
    options: tuple[tuple[str, str], ...] = ()
    """Name and value of what was chosen of it."""
    detail: str = ""
    """What is read of it: one of `DETAILS`."""
    visited: frozenset[str] = frozenset()
    """Products that were looked at."""


def on_page(view: View, shop: Shop) -> tuple[str, ...]:
    """The products on a page of results."""
    return shop.search(view.query)[(view.number - 1) * PER_PAGE : view.number * PER_PAGE]


def buttons(view: View, shop: Shop) -> dict[str, Button]:
    """What can be clicked, by its lower-case text, in the page's order.

    Where two have the same text, the later one counts, as in the original.
    """
    if view.page == "search":
        return {}
    if view.page == "results":
        found = [_button(BACK), *(_button(text) for text in _turns(view, shop))]
        found += (("product", asin, "") for asin in on_page(view, shop))
    elif view.page == "item":
        product = shop.find(view.asin)
        found = [_button(text) for text in (BACK, PREVIOUS, *DETAILS, BUY)]
        found += (("option", value, name) for name, values in product.options.items() for value in values)
    elif view.page == "detail":
        found = [_button(BACK), _button(PREVIOUS)]
    else:
        found = []
    return {button[1].lower(): button for button in found}


def _button(text: str) -> Button:
    return "button", text, ""


def _turns(view: View, shop: Shop) -> list[str]:
    """Buttons that turn the page of results."""
    turns = [PREVIOUS] if view.number > 1 else []
    return [*turns, NEXT] if view.number * PER_PAGE < len(shop.search(view.query)) else turns


def search(view: View, query: str) -> View:
    """The first page of results for `query`; what was chosen is forgotten."""
    return View("results", query, visited=view.visited)


def click(view: View, button: Button) -> View:
    """The page that one of its `buttons` leads to."""
    kind, text, name = button
    if kind == "product":
        return view._replace(page="item", asin=text, options=(), visited=view.visited | {text})
    if kind == "option":
        return view._replace(options=tuple(sorted({**dict(view.options), name: text}.items())))
    if text == BACK:
        return View(visited=view.visited)
    if text == BUY:
        return view._replace(page="done")
    if text in DETAILS:
        return view._replace(page="detail", detail=text)
    if view.page == "detail":
        return view._replace(page="item", detail="")
    if view.page == "item":
        return view._replace(page="results", asin="", options=())
    return view._replace(number=view.number + (1 if text == NEXT else -1))
