"""The `reasoning` suite: `reasoning/GENERATOR:SPLIT` for each of reasoning-gym's generators that is offered."""

from __future__ import annotations

from typing import Any

import msgspec

from palaestra.envs.reasoning import bench
from palaestra.envs.reasoning.generators import DEFAULT, PER_SPLIT, known
from palaestra.envs.reasoning.judge import Wanted
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import ConfigError, UnknownNameError

ENV = "reasoning/Gym-v0"


def load(split: str, level: str | None = None, **params: Any) -> TaskSuite:
    """The questions of one generator and split.

    Args:
        split: `train`, `validation` or `test`; no question is in two of them.
        level: the generator; the default is `chain_sum`.
        params: `difficulty`, a level of the package's curriculum for the generator, and fields of the generator's
            configuration, which come before that.

    Raises:
        ConfigError: the generator is refused, or the package refuses the parameters; the message has its words.
        MissingExtraError: parameters were given, and reasoning-gym is not installed.
        UnknownNameError: no such generator or split.
    """
    generator = known(level or DEFAULT)
    if split not in PER_SPLIT:
        raise UnknownNameError("split of reasoning", split, PER_SPLIT)
    config = dict(params)
    difficulty = config.pop("difficulty", None)
    if difficulty is not None and type(difficulty) is not int:
        raise ConfigError(f"difficulty of {generator} is a whole number, not {difficulty!r}")
    if params:
        _check(Wanted(generator, difficulty, config))
    name = "-".join([generator, *(f"{key}={value}" for key, value in sorted(params.items()))])
    setting = {"generator": generator, "difficulty": difficulty, "config": config, "split": split}

    def build(index: int) -> Task:
        params = {**setting, "index": index}
        return Task(env=ENV, name=f"{name}-{index}", split=split, seed=index, params=params, kind=generator)

    return TaskSuite(f"reasoning/{generator}", split, PER_SPLIT[split], build)


def _check(wanted: Wanted) -> None:
    try:
        msgspec.json.encode(wanted)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"parameters of {wanted.generator} are JSON values: {error}") from error
    bench.ask(wanted)
