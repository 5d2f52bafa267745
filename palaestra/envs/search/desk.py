"""The desk: it carries out searches and reads, and tells what came of them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from palaestra.envs.search.corpus import Corpus, Page, snippet
from palaestra.envs.search.offers import names_in
from palaestra.envs.search.options import Options
from palaestra.envs.search.request import Request, escaped

_PART = re.compile(r"(?P<name>.*\S)[,;]?\s+\(?part (?P<number>\d{1,6})\)?", re.IGNORECASE)


class Outcome(NamedTuple):
    """What a call led to."""

    text: str
    """For the agent, in `<result>` tags, with nothing inside that could be taken for a tag."""
    tool: dict[str, Any]
    """For `info["tool"]`."""
    refused: bool = False
    """Whether the call was impossible."""
    shown: tuple[str, ...] = ()
    """Ids of the pages that were found."""
    read: str = ""
    """Id of the page that was read."""
    names: tuple[str, ...] = ()
    """Titles and values that are known from now on."""


def serve(request: Request, corpus: Corpus, options: Options) -> Outcome:
    """Carry out a `search` or a `read`."""
    serving = _search if request.name == "search" else _read
    return serving(request.argument, corpus, options)


def _search(query: str, corpus: Corpus, options: Options) -> Outcome:
    if not query:
        return Outcome(wrap("Nothing to search for: the query is empty."), _tool("search", False), refused=True)
    pages = corpus.search(query, options.results)
    lines = [f"[{page.id}] {page.title}: {snippet(page.text, query, options.snippet)}" for page in pages]
    titles = tuple(page.title for page in pages)
    text = "\n".join(lines) if lines else "No page has any of these words."
    return Outcome(
        wrap(text), _tool("search", bool(pages), results=len(pages)), shown=tuple(p.id for p in pages), names=titles
    )


def _read(argument: str, corpus: Corpus, options: Options) -> Outcome:
    page, number = _looked_up(argument, corpus)
    if page is None:
        near = "; ".join(found.title for found in corpus.search(argument, 3)) or "none"
        text = f'There is no page called "{argument[:200]}". Pages that have its words: {near}.'
        return Outcome(wrap(text), _tool("read", False), refused=True)
    parts = max(1, -(-len(page.text) // options.part))
    if not 1 <= number <= parts:
        text = f'"{page.title}" has {parts} part{"s" if parts > 1 else ""}; there is no part {number}.'
        return Outcome(wrap(text), _tool("read", False), refused=True)
    piece = page.text[(number - 1) * options.part : number * options.part]
    more = f"\n(part {number} of {parts})" if parts > 1 else ""
    names = (page.title, *(names_in(piece) if page.mentions is None else page.mentions))
    tool = _tool("read", True, page=page.id, part=number)
    return Outcome(wrap(f"{page.title}\n{piece}{more}"), tool, read=page.id, names=names)


def _looked_up(argument: str, corpus: Corpus) -> tuple[Page | None, int]:
    """The page and the part of it: a title may itself end like a part."""
    line = " ".join(argument.split())
    page = corpus.find(line) if line else None
    match = None if page else _PART.fullmatch(line)
    if match is None:
        return page, 1
    return corpus.find(match["name"].rstrip(" ,;")), int(match["number"])


def wrap(text: str) -> str:
    """`text` as a result."""
    return f"<result>\n{escaped(text)}\n</result>"


def _tool(name: str, ok: bool, **more: Any) -> dict[str, Any]:
    return {"name": name, "ok": ok, **more}
