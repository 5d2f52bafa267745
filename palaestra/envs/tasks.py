"""Tasks and suites: what an episode is to solve, named so that anybody can run the same one again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, overload

import msgspec

from palaestra.envs.card import SuiteCard
from palaestra.errors import ConfigError, UnknownNameError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task, complete: `make(task.env)` and `reset(seed=task.seed, task=task)` always begin the same episode."""

    env: str
    """Id of the environment that plays it, `namespace/Name-vN`."""
    name: str
    """Unique within its suite and split, and stable across versions of the data."""
    split: str = "train"
    """`train`, `validation` or `test`; a suite may name more (ALFRED's `valid_seen`)."""
    seed: int = 0
    """Seed of the environment's generator."""
    params: dict[str, Any] = {}
    """JSON values that the environment needs to build the task."""
    kind: str = ""
    """The row under which evaluation reports it, for example a task type."""


class TaskSuite(Sequence[Task]):
    """An ordered set of tasks of one split, made on demand.

    `suite[i]` builds task `i`; a slice is again a suite. Splits of one suite never share a task.
    """

    def __init__(self, name: str, split: str, size: int, build: Callable[[int], Task]) -> None:
        self.name, self.split, self._indices, self._build = name, split, range(size), build

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, key: int) -> Task: ...
    @overload
    def __getitem__(self, key: slice) -> TaskSuite: ...
    def __getitem__(self, key: int | slice) -> Task | TaskSuite:
        if isinstance(key, int):
            return self._build(self._indices[key])
        part = TaskSuite(self.name, self.split, 0, self._build)
        part._indices = self._indices[key]
        return part

    def paid_by_progress(self) -> TaskSuite:
        """The same tasks, whose rewards are those of `ProgressReward`."""

        def build(index: int) -> Task:
            task = self._build(index)
            return msgspec.structs.replace(task, params={**task.params, "progress": True})

        part = TaskSuite(self.name, self.split, 0, build)
        part._indices = self._indices
        return part

    def __iter__(self) -> Iterator[Task]:
        return map(self._build, self._indices)

    def __repr__(self) -> str:
        return f"TaskSuite({self.name}:{self.split}, {len(self)} tasks)"


SuiteLoader = Callable[..., TaskSuite]
"""Called as `loader(split, level, **params)`; raises `PalaestraError` for a split or level that it does not have."""

_REFERENCE = re.compile(
    r"(?P<name>[^/:]+)(/(?P<level>[^:]+))?:(?P<split>[^:\[\]]+)(\[(?P<start>(-?\d+)?):(?P<stop>(-?\d+)?)\])?"
)
_BUILT_IN = {
    "alfworld": "palaestra.envs.alfworld",
    "babyai": "palaestra.envs.babyai",
    "countdown": "palaestra.envs.countdown",
    "search": "palaestra.envs.search",
    "frozenlake": "palaestra.envs.frozenlake",
    "scienceworld": "palaestra.envs.scienceworld",
    "sokoban": "palaestra.envs.sokoban",
    "reasoning": "palaestra.envs.reasoning",
    "math": "palaestra.envs.math",
    "textworld": "palaestra.envs.textworld",
    "textworld-express": "palaestra.envs.textworld_express",
    "swe": "palaestra.envs.swe",
    "webshop": "palaestra.envs.webshop",
    "textarena": "palaestra.envs.textarena",
    "gem": "palaestra.envs.gem",
    "verifiers": "palaestra.envs.verifiers",
    "gymnasium": "palaestra.envs.gymnasium_text",
}
"""Name -> folder, with `suite.load` and `card.CARD`."""
_LOADERS: dict[str, SuiteLoader | str] = {name: f"{folder}.suite:load" for name, folder in _BUILT_IN.items()}
_CARDS: dict[str, SuiteCard | str] = {name: f"{folder}.card:CARD" for name, folder in _BUILT_IN.items()}


def register_suite(name: str, loader: SuiteLoader | str, card: SuiteCard | str | None = None) -> None:
    """Make `loader` answer `load_suite("name[/level]:split")`. A later registration replaces an earlier one.

    A `"module:attribute"` string is imported when the suite is first loaded, or its card first read.
    """
    if not name or "/" in name or ":" in name:
        raise ConfigError(f"{name!r} cannot name a suite; a name has neither '/' nor ':'")
    _LOADERS[name] = loader
    _CARDS.pop(name, None)
    if card is not None:
        _CARDS[name] = card


def suite_card(name: str) -> SuiteCard | None:
    """What there is to know of a suite; `None` where its author has not said.

    Raises:
        UnknownNameError: no such suite; the message names the nearest.
    """
    _discover()
    if name not in _LOADERS:
        raise UnknownNameError("suite", name, _LOADERS)
    card = _CARDS.get(name)
    if isinstance(card, str):
        from palaestra.envs.registry import load_object

        loaded: SuiteCard = load_object(card)
        return loaded
    return card


def suite_names() -> list[str]:
    """Names of all registered suites, sorted."""
    _discover()
    return sorted(_LOADERS)


def load_suite(reference: str, **params: Any) -> TaskSuite:
    """The suite that `reference`, `NAME[/LEVEL]:SPLIT`, names: `alfworld/small:test`.

    A Python slice at the end takes some of the tasks: `alfworld/small:test[300:600]`.

    Args:
        reference: which suite.
        params: the suite's own; and every suite has `progress`: whether rewards are those of `ProgressReward`.

    Raises:
        ConfigError: the reference is malformed, or `progress` is neither true nor false.
        UnknownNameError: no such suite; the message names the nearest.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError(
            f"{reference!r} is not a suite reference; write NAME[/LEVEL]:SPLIT, as in alfworld:test, "
            f"with a slice for some of the tasks: alfworld:test[100:200]"
        )
    name, level = match["name"], match["level"]
    _discover()
    if name not in _LOADERS:
        raise UnknownNameError("suite", name, _LOADERS)
    progress = params.pop("progress", False)
    if not isinstance(progress, bool):
        raise ConfigError(f"progress of a suite is true or false, not {progress!r}")
    suite = _loader(name)(match["split"], level, **params)
    if progress:
        suite = suite.paid_by_progress()
    if match["start"] is None:
        return suite
    return suite[slice(*(int(match[end]) if match[end] else None for end in ("start", "stop")))]


def _loader(name: str) -> SuiteLoader:
    loader = _LOADERS[name]
    if isinstance(loader, str):
        from palaestra.envs.registry import load_object

        loaded: SuiteLoader = load_object(loader)
        _LOADERS[name] = loaded
        return loaded
    return loader


def _discover() -> None:
    from palaestra.envs.registry import discover

    discover()
