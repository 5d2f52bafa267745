"""A taskset of verifiers, loaded: its rows and the environment that plays them. Runs where verifiers is installed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from palaestra.envs.ending import told
from palaestra.envs.params import split_of
from palaestra.envs.verifiers.chosen import MOST_ROWS, PLACE, SUPPORTED, Chosen
from palaestra.errors import EnvError, require

EXAMPLES = Path(__file__).parent / "examples"
CHATS = ("bash", "null")
"""Harnesses in whose place a plain conversation may be played; `bash` is what a taskset gets that asks for none."""


def check_version() -> None:
    """Refuse a verifiers that this adapter was not made for.

    Raises:
        MissingExtraError: it is not installed.
        EnvError: it is of another version.
    """
    require("verifiers", "verifiers")
    found = version("verifiers")
    if found != SUPPORTED and not found.startswith(f"{SUPPORTED}."):
        raise EnvError(f"verifiers {found} is installed, and {SUPPORTED} is supported; run: pip install '{PLACE}'")


class Loaded:
    """The rows of a taskset, read as far as somebody asked, and its environment."""

    def __init__(self, choice: Chosen, judges: bool) -> None:
        """Load it; see `loaded`."""
        from verifiers.v1.utils import loaders

        self.choice = choice
        self.own_splits = "split" in loaders.taskset_config_type(choice.taskset).model_fields
        args = {"split": choice.split, **choice.args} if self.own_splits else choice.args
        config = {**choice.env_args, "id": choice.env, "taskset": {**args, "id": choice.taskset}}
        logging.getLogger("verifiers").setLevel(logging.ERROR)  # it warns of harnesses, none of which is started
        self.env: Any = loaders.load_environment(loaders.resolve_env_config(config))
        self._refuse(loaders.default_harness_id(choice.taskset), judges)
        self._rows: list[Any] = []
        self._coming: Iterator[Any] = iter(self.env.taskset)

    def row(self, index: int) -> Any:
        """Row `index`.

        Raises:
            EnvError: there are not so many.
        """
        self._read(min(index, MOST_ROWS) + 1)
        if not 0 <= index < len(self._rows):
            found = len(self._rows)
            raise EnvError(f"the taskset {self.choice.taskset!r} has {found} rows, and row {index} was asked for")
        return self._rows[index]

    def indices(self, most: int) -> list[int]:
        """Which of the first `most` rows belong to the split."""
        self._read(most)
        return [index for index, row in enumerate(self._rows[:most]) if self._split(row) == self.choice.split]

    def listed(self) -> list[tuple[int, str, str]]:
        """Of every row its index, name and split."""
        self._read(MOST_ROWS)
        return [(index, self.name(index), self._split(row)) for index, row in enumerate(self._rows)]

    def name(self, index: int) -> str:
        """Stable, and unique in the taskset."""
        data = self.row(index).data
        return f"{data.id or data.name or self.choice.taskset}-{index}"

    def _read(self, most: int) -> None:
        try:
            for row in islice(self._coming, max(0, most - len(self._rows))):
                self._rows.append(row)
        except Exception as error:
            raise EnvError(f"the taskset {self.choice.taskset!r} failed: {told(error)[:1000]}") from error

    def _split(self, row: Any) -> str:
        """By what the row says, so that the same question is never in two splits."""
        if self.own_splits:
            return self.choice.split
        said = row.data.model_copy(update={"idx": None}).model_dump(mode="json", exclude_none=True)
        return split_of(msgspec.json.encode(said, order="deterministic").decode())

    def _refuse(self, default_harness: str, judges: bool) -> None:
        """Refuse what this adapter cannot play.

        Raises:
            EnvError: it needs a container, tools, another harness or a judge.
        """
        env, name = self.env, self.choice.taskset
        kind = type(env.taskset).task_type()
        if kind.NEEDS_CONTAINER:
            raise EnvError(f"{name!r} plays in containers, which this adapter does not start")
        if env.taskset.toolsets(env.taskset.config) or kind.toolsets(env.taskset.config.task):
            raise EnvError(f"{name!r} has tools that verifiers serves over MCP, which this adapter does not start")
        harnesses = {default_harness, *(spec.harness.id for spec in env._agent_specs.values() if spec.harness)}
        if others := sorted(harnesses - {*CHATS}):
            raise EnvError(f"{name!r} is played by a program of its own ({', '.join(others)}), not by conversation")
        found = sorted(_judges(env.config, "env"))
        if found and not judges:
            raise EnvError(
                f"{name!r} is graded by a model behind an API ({', '.join(found)}); pass judges=True to have it "
                f"called, with the key that verifiers asks for"
            )


def _judges(value: Any, where: str) -> Iterator[str]:
    """The settings of judges in a config."""
    from pydantic import BaseModel
    from verifiers.v1.configs.judge import JudgeConfig

    if isinstance(value, JudgeConfig):
        yield f"{where}: {value.model}"
    elif isinstance(value, BaseModel):
        for name, part in value:
            yield from _judges(part, f"{where}.{name}")
    elif isinstance(value, list):
        for part in value:
            yield from _judges(part, where)


def loaded(choice: Chosen, judges: bool = False) -> Loaded:
    """The taskset, loaded once a process.

    Args:
        choice: which, and how.
        judges: whether it may call models that grade.

    Raises:
        EnvError: there is none, it fails, its settings are wrong, or it needs what this adapter does not have.
        MissingExtraError: verifiers is not installed.
    """
    check_version()
    for folder in (*filter(None, choice.path.split(os.pathsep)), str(EXAMPLES)):
        if folder not in sys.path:
            sys.path.append(folder)  # last, so that nothing there stands before what is installed
    try:
        return _kept(choice.key, judges)
    except EnvError:
        raise
    except Exception as error:
        what = " ".join(str(error).split())[:1000]
        raise EnvError(f"cannot load the taskset {choice.taskset!r}: {type(error).__name__}: {what}") from error


@lru_cache(maxsize=8)
def _kept(key: bytes, judges: bool) -> Loaded:
    return Loaded(msgspec.json.decode(key, type=Chosen), judges)
