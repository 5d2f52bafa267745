"""Questions of reasoning-gym: made, kept for a while, and judged. Runs in the judge's process only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from palaestra.envs.reasoning.generators import PER_SPLIT
from palaestra.envs.reasoning.guard import judged, objection
from palaestra.errors import ConfigError, EnvError, require

KEPT = 512
"""Questions that are remembered, so that a group of episodes has its own made once."""
OPEN = 32
"""Data sets that are remembered: some read files of megabytes."""
BLOCK = 20_000
"""Questions of one of the package's data sets; word_ladder allows no more."""
BLOCKS = {"acre": 500}
"""Generators that make all of them at once."""
DRAWS = 64
"""Most questions that are made to find one of the wanted split."""
STREAMS = {"train": 0, "validation": 1 << 30, "test": 1 << 31}
"""Split -> its first seed. Generators seed question `i` with `seed + i`."""
EXAMPLES = ("example_correct_answer", "example_answer", "possible_answer")
"""Where generators with many right answers store one, if they do."""

_datasets: OrderedDict[str, Any] = OrderedDict()
_entries: OrderedDict[tuple[str, int], dict[str, Any]] = OrderedDict()


def split_of(question: str) -> str:
    """The split of a question, by a hash of its text: half are for training, a quarter each for the others.

    So no question is in two splits, however few a generator has. Quarters, because some take seconds to make.
    """
    bucket = hashlib.blake2b(question.encode("utf-8", "replace"), digest_size=1).digest()[0] >> 6
    return ("train", "train", "validation", "test")[bucket]


def validate(generator: str, difficulty: int | None, config: Mapping[str, Any]) -> None:
    """Refuse what cannot be played.

    Raises:
        ConfigError: in the package's words where they are its own, what does not fit.
    """
    _dataset(generator, difficulty, config, 0, 1)


def entry(generator: str, difficulty: int | None, config: Mapping[str, Any], split: str, index: int) -> dict[str, Any]:
    """Question `index` of a split: `question`, `answer` and what else its scorer wants.

    Raises:
        ConfigError: as `validate`.
        EnvError: the generator fails, or has no question of this split.
    """
    key = (_name(generator, difficulty, config, split), index)
    if key not in _entries:
        _keep(_entries, key, _drawn(generator, difficulty, config, split, index), KEPT)
    _entries.move_to_end(key)
    return _entries[key]


def _drawn(generator: str, difficulty: int | None, config: Mapping[str, Any], split: str, index: int) -> dict[str, Any]:
    """The first question of the split among those that are numbered for this index."""
    failed: EnvError | None = None
    for draw in range(DRAWS):
        try:
            found = _made(generator, difficulty, config, split, draw * PER_SPLIT[split] + index)
        except EnvError as error:
            failed = error
            continue
        if split_of(found["question"]) == split:
            return found
    raise failed or EnvError(f"{generator} has no question for {split} among {DRAWS}; this config allows too few")


def stored_answer(found: Mapping[str, Any]) -> str | None:
    """The answer that comes with a question; `None` where its generator has none."""
    metadata = found.get("metadata") or {}
    answer = found["answer"]
    for name in EXAMPLES:
        answer = metadata.get(name) if answer is None else answer
    return json.dumps(answer) if isinstance(answer, dict) else answer if isinstance(answer, str) else None


def score(generator: str, difficulty: int | None, config: Mapping[str, Any], found: dict[str, Any], answer: str) -> Any:
    """What the package's scorer makes of an answer, made safe: reward, and why it is 0 where something was wrong."""
    reason = objection(generator, answer)
    if reason:
        return 0.0, reason
    scorer = _dataset(generator, difficulty, config, 0, 1)
    try:
        return judged(scorer.score_answer(answer=answer, entry=found))
    except (Exception, RecursionError) as error:
        return 0.0, f"the scorer raised {type(error).__name__}: {str(error)[:200]}"


def _made(generator: str, difficulty: int | None, config: Mapping[str, Any], split: str, number: int) -> dict[str, Any]:
    """Question `number` of a split's stream, whatever its hash."""
    size = BLOCKS.get(generator, BLOCK)
    block, place = divmod(number, size)
    questions = _dataset(generator, difficulty, config, STREAMS[split] + block * size, size)
    try:
        made: dict[str, Any] = questions[place]
    except Exception as error:
        _datasets.clear()  # word_ladder shrinks when it fails
        raise EnvError(f"{generator} cannot make question {number} of {split}: {error!r}") from error
    return made


def _dataset(generator: str, difficulty: int | None, config: Mapping[str, Any], seed: int, size: int) -> Any:
    key = f"{_name(generator, difficulty, config, str(seed))} {size}"
    if key not in _datasets:
        try:
            _keep(_datasets, key, _new(generator, difficulty, config, {"seed": seed, "size": size}), OPEN)
        except ConfigError:
            raise
        except Exception as error:  # assertions, type errors, and what else comparing odd values raises
            given = {**({} if difficulty is None else {"difficulty": difficulty}), **config}
            said = str(error) or type(error).__name__
            raise ConfigError(f"reasoning-gym refuses {generator} with {given}: {said}") from error
    _datasets.move_to_end(key)
    return _datasets[key]


def _new(generator: str, difficulty: int | None, config: Mapping[str, Any], stream: dict[str, int]) -> Any:
    require("reasoning_gym", "reasoning")
    from reasoning_gym.factory import DATASETS

    if generator not in DATASETS:
        raise ConfigError(f"this version of reasoning-gym has no generator {generator!r}; install 0.1.25")
    kind, config_type = DATASETS[generator]
    own = {field.name for field in dataclasses.fields(config_type)} - {"seed", "size"}
    unknown = next((name for name in config if name not in own), None)
    if unknown is not None:
        raise ConfigError(f"{generator} has no parameter {unknown!r}; it has {', '.join(['difficulty', *sorted(own)])}")
    at_level = config_type(**stream) if difficulty is None else _at_level(generator, difficulty, stream)
    return kind(config=dataclasses.replace(at_level, **config))


def _at_level(generator: str, difficulty: int, stream: dict[str, int]) -> Any:
    from reasoning_gym.factory import create_curriculum, has_curriculum

    if not has_curriculum(generator):
        raise ConfigError(f"reasoning-gym has no curriculum for {generator}; leave difficulty out")
    curriculum = create_curriculum(generator)
    most = max((len(attribute.levels) for attribute in curriculum.attributes.values()), default=1) - 1
    if not isinstance(difficulty, int) or isinstance(difficulty, bool) or not 0 <= difficulty <= most:
        raise ConfigError(f"difficulty of {generator} is a whole number from 0 to {most}, not {difficulty!r}")
    curriculum.set_global_level(difficulty)
    return curriculum.generate_configuration(stream)


def _name(generator: str, difficulty: int | None, config: Mapping[str, Any], more: str) -> str:
    return json.dumps([generator, difficulty, dict(config), more], sort_keys=True)


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    kept[key] = value
    while len(kept) > most:
        kept.popitem(last=False)
