"""Searches that an instruction suggests, for who chooses among commands instead of writing them."""

from __future__ import annotations

import re

from palaestra.envs.webshop.goal import Goal

_IDLE_WORDS = """
a am an and are be buy can do find for get give have help i i'd i'm in is it looking me my need of on or order
please shop should show some that the to want which with would you
"""
_IDLE = frozenset(_IDLE_WORDS.split())
_WORD = re.compile(r"[^\s:,;.!?]+(?:[.:][^\s:,;.!?]+)*")


def suggested(goal: Goal) -> list[str]:
    """Different queries made of the instruction's words alone, nothing of what the visitor does not know.

    All of it without its price, its words that say something, and their first, second and third third.
    """
    words = [word for word in _WORD.findall(goal.wish.lower()) if word not in _IDLE]
    third = -(-len(words) // 3) or 1
    parts = [words[start : start + third] for start in range(0, len(words), third)]
    queries = [goal.wish.lower(), " ".join(words), *(" ".join(part) for part in parts)]
    return list(dict.fromkeys(filter(None, queries)))
