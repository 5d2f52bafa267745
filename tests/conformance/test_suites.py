"""Every suite is what its card says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from palaestra.envs.card import SuiteCard
from palaestra.envs.checks.supervisor import unbuilt
from palaestra.envs.registry import make, spec
from palaestra.envs.swe.index import UnreachableError
from palaestra.envs.tasks import load_suite, suite_card, suite_names
from palaestra.errors import MissingExtraError

ROOT = Path(__file__).resolve().parents[2]
NAMES = suite_names()


def card_of(name: str) -> SuiteCard:
    card = suite_card(name)
    assert card is not None, f"{name} has no card"
    return card


WITH_TASKS = [name for name in NAMES if None not in card_of(name).splits.values()]
"""Those whose tasks do not depend on data, or programs, of the user's."""


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_right(name: str) -> None:
    card = card_of(name)
    assert card.name == name
    assert (ROOT / "docs" / card.page).exists()
    assert (card.determinism == "noisy") == spec(card.env).nondeterministic
    for split, size in card.splits.items():
        if size is None:
            continue
        try:
            suite = load_suite(f"{name}:{split}")
        except MissingExtraError as error:
            pytest.skip(str(error))
        assert len(suite) == size
        assert suite[0].env == card.env


@pytest.mark.parametrize("name", WITH_TASKS)
def test_every_level_has_every_split_and_splits_share_no_task(name: str) -> None:
    card = card_of(name)
    for level in card.levels or ("",):
        if (name, level) in (("alfworld", "alfred"), ("alfworld", "original")):
            continue  # needs ALFRED's data, or ALFWorld's; tested with the suite
        seen: set[tuple[str, str]] = set()
        for split in card.splits:
            try:
                suite = load_suite(f"{name}/{level}:{split}" if level else f"{name}:{split}")
            except MissingExtraError as error:
                pytest.skip(str(error))
            tasks = {(task.env, repr(sorted(task.params.items())) + str(task.seed)) for task in suite[:200]}
            assert len(tasks) == min(200, len(suite))
            assert not tasks & seen
            seen |= tasks


@pytest.mark.parametrize("name", WITH_TASKS)
def test_the_first_task_begins_and_offers_what_the_card_says(name: str) -> None:
    card = card_of(name)
    if unbuilt(spec(card.env)):
        pytest.skip(f"its interpreter is not built; run: palaestra interpreters --build {card.env}")

    async def begin() -> tuple[bool, bool, bool]:
        task = load_suite(f"{name}:test")[0]
        async with make(task.env) as env:
            info = (await env.reset(seed=task.seed, task=task)).info
            return bool(info.get("admissible_commands")), hasattr(env, "oracle"), info.get("success", False)

    try:
        admissible, oracle, success = asyncio.run(begin())
    except (MissingExtraError, UnreachableError) as error:
        pytest.skip(str(error))
    assert (admissible, oracle, success) == (card.admissible, card.oracle, False)
