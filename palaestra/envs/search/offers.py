"""Commands that make sense now, for agents that choose among them: a bounded list made of the names seen so far."""

from __future__ import annotations

import re
from collections.abc import Sequence

from palaestra.envs.search.corpus import Corpus
from palaestra.envs.search.request import say

MOST_NAMES = 200
"""Names that are remembered; the newest stay."""
_NAME = re.compile(r"[A-Z0-9][\w'’.,&-]*(?:\s+(?:(?:of|and|the|de|von|on)\s+)?[A-Z0-9][\w'’.,&-]*)*")
_LONGEST_NAME = 80


def names_in(text: str) -> tuple[str, ...]:
    """What looks like names and numbers in `text`, in order."""
    found = (match[0].rstrip(".,;'’") for match in _NAME.finditer(text[:20_000]))
    return tuple(dict.fromkeys(name for name in found if len(name) <= _LONGEST_NAME))[:MOST_NAMES]


def asked_for(question: str) -> tuple[str, ...]:
    """The names in a question, without its first word."""
    return names_in(question.partition(" ")[2])


def remember(seen: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """`names` first, then those seen before."""
    return tuple(dict.fromkeys((*names, *seen)))[:MOST_NAMES]


def offers(question: str, seen: Sequence[str], corpus: Corpus, style: str, most: int) -> list[str]:
    """At most `most` commands: searching for each name, reading it where it is a page, and giving it as the answer.

    Args:
        question: it is searched for too.
        seen: names, those that come first in the list first.
        corpus: says what is a page.
        style: of actions.
        most: of them.
    """
    commands = [say("search", question, style)] if most else []
    for name in seen:
        if len(commands) >= most:
            break
        commands += [say("search", name, style), say("answer", name, style)]
        if corpus.find(name) is not None:
            commands.append(say("read", name, style))
    return list(dict.fromkeys(commands))[:most]
