"""HTML and SVG from nested calls. Every text and attribute is escaped unless it is already `Markup`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_VOID = {"br", "col", "hr", "img", "input", "link", "meta"}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already. Only this module and constant strings make it."""

    __slots__ = ()


Child = str | float | None | Iterable["Child"]
"""Text is escaped; numbers are shortened; `None` is nothing; iterables are flattened."""


def escape(text: str) -> Markup:
    """`text` so that it is only ever text, in an element or a quoted attribute. Control characters become `\ufffd`."""
    return Markup(html.escape(_CONTROL.sub("\ufffd", text), quote=True))


def render(*children: Child) -> Markup:
    """The children one after the other."""
    return Markup("".join(_render(children)))


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """One element. In attribute names `_` stands for `-`, and a trailing one is dropped (`class_`).

    `None` and `False` leave an attribute out; `True` writes it without a value.
    """
    head = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{head}>")
    return Markup(f"<{name}{head}>{render(*children)}</{name}>")


def number(value: float) -> str:
    """At most two decimals and no trailing zeros: coordinates."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _render(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str):
            yield escape(child)
        elif isinstance(child, int | float):
            yield number(child)
        elif child is not None:
            yield from _render(child)


def _attribute(key: str, value: str | float | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(value if isinstance(value, str) else number(value))}"'
