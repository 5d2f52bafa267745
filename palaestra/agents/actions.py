"""Action formats: what a completion means as an action, and which completions are allowed.

A completion that means nothing is data, not an error: it is sent to the environment as it is, which refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from palaestra.agents.chat import ChatFormat
from palaestra.agents.constraint import TokenTrie
from palaestra.envs.core import Info
from palaestra.errors import EnvError


@dataclass(frozen=True, slots=True)
class ParsedAction:
    """What a completion means."""

    text: str
    """What to send to the environment."""
    error: str = ""
    """Why the completion is no action; empty if it is one."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The completions that are allowed in one turn."""

    trie: TokenTrie
    commands: Mapping[tuple[int, ...], str]
    """The command of each allowed completion, end token included."""
    longest: int
    """Tokens of the longest one."""


class ActionFormat(Protocol):
    """Between completions and actions."""

    def choices(self, chat: ChatFormat, info: Info) -> Choices | None:
        """The completions allowed now; `None`: any."""

    def parse(self, chat: ChatFormat, ids: Sequence[int], choices: Choices | None) -> ParsedAction:
        """The action that a completion means."""


@dataclass(frozen=True, slots=True)
class TextAction:
    """The first line of whatever the model writes."""

    def choices(self, chat: ChatFormat, info: Info) -> None:
        """Everything is allowed."""

    def parse(self, chat: ChatFormat, ids: Sequence[int], choices: Choices | None) -> ParsedAction:
        """The first line of the text, without blanks around it."""
        lines = chat.decode(ids).strip().splitlines()
        return ParsedAction(lines[0].strip()) if lines else ParsedAction("", "the completion is empty")


@dataclass(frozen=True, slots=True)
class MessageAction:
    """Whatever the model writes, all of it: for environments that read reasoning, tags of tool calls, code."""

    def choices(self, chat: ChatFormat, info: Info) -> None:
        """Everything is allowed."""

    def parse(self, chat: ChatFormat, ids: Sequence[int], choices: Choices | None) -> ParsedAction:
        """The text, without blanks around it."""
        text = chat.decode(ids).strip()
        return ParsedAction(text, "" if text else "the completion is empty")


class ChoiceAction:
    """One of the admissible commands: the engine samples only tokens that lead to one.

    Needs environments that give `admissible_commands`. The learner must mask alike: for that, the trajectory has the
    allowed ids of each sampled token.
    """

    def __init__(self, *, cache_size: int = 512) -> None:
        self._build = lru_cache(maxsize=cache_size)(_build_choices)

    def choices(self, chat: ChatFormat, info: Info) -> Choices:
        """The admissible commands as a trie of token ids.

        Raises:
            EnvError: the environment gives none.
        """
        commands = info.get("admissible_commands")
        if not commands:
            raise EnvError("the environment gives no admissible_commands to choose from; use the text action format")
        return self._build(chat, tuple(commands))

    def parse(self, chat: ChatFormat, ids: Sequence[int], choices: Choices | None) -> ParsedAction:
        """The command whose ids these are."""
        command = choices.commands.get(tuple(ids)) if choices else None
        if command is None:
            return ParsedAction(chat.decode(ids).strip(), "the completion is none of the admissible commands")
        return ParsedAction(command)


def _build_choices(chat: ChatFormat, commands: tuple[str, ...]) -> Choices:
    paths: dict[tuple[int, ...], str] = {}
    for command in commands:
        paths.setdefault(tuple(chat.completion(command)), command)
    return Choices(TokenTrie(paths), paths, max(map(len, paths)))


FORMATS: Mapping[str, Callable[[], ActionFormat]] = {
    "text": TextAction,
    "choice": ChoiceAction,
    "message": MessageAction,
}
"""By name, as recipes call them."""
