"""The gem suite and its levels, which need no package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from palaestra.envs.gem.env import GemEnv
from palaestra.envs.gem.games import LEVELS, commands
from palaestra.envs.tasks import load_suite
from palaestra.errors import EnvError, UnknownNameError


def test_tasks_name_level_and_seed() -> None:
    suite = load_suite("gem/rg/leg_counting:test")
    assert len(suite) == 1000
    assert (suite[3].name, suite[3].kind, suite[3].seed) == ("rg/leg_counting-3", "rg/leg_counting", 101_003)
    assert suite[3].params == {"level": "rg/leg_counting"}
    assert load_suite("gem:train")[0].params == {"level": "game/Sokoban-v0-easy"}


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UnknownNameError, match="'game/Sudoku-v0-easy'"):
        load_suite("gem/game/Sudoku-v0-esy:train")
    with pytest.raises(UnknownNameError, match="split"):
        load_suite("gem:dev")
    with pytest.raises(UnknownNameError, match="level"):
        GemEnv("chess")


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        ("math/GSM8K", "Hugging Face"),
        ("eval/AIME24", "Hugging Face"),
        ("game/Wordle-v0-easy", "NLTK"),
        ("game/Crosswords-v0-easy", "pandas"),
        ("rg/ransom_note", "differ from process to process"),
        ("rg/game_of_life_halting", "pays 1 for any answer"),
    ],
)
def test_what_cannot_be_played_is_refused_with_the_reason(level: str, reason: str) -> None:
    with pytest.raises(EnvError, match=f"{level} cannot be played: .*{reason}"):
        load_suite(f"gem/{level}:test")


def test_levels_are_plenty_and_steered_ones_list_their_commands() -> None:
    assert len(LEVELS) == len(set(LEVELS)) == 118
    assert commands("game/Game2048-v0-hard") == [f"\\boxed{{{way}}}" for way in ("up", "down", "left", "right")]
    assert commands("rg/leg_counting") is None


FAKES = {
    "no make": "",
    "another reset": "class Game:\n    def reset(self): return 'hello', {}\ndef make(id, **kwargs): return Game()",
    "another step": (
        "class Game:\n    def reset(self, seed): return 'hello', {}\n    def step(self, action): return 'well', 1.0\n"
        "def make(id, **kwargs): return Game()"
    ),
    "a reward that is none": (
        "class Game:\n    def reset(self, seed): return 'hello', {}\n"
        "    def step(self, action): return 'well', float('nan'), False, False, {}\n"
        "def make(id, **kwargs): return Game()"
    ),
}


@pytest.mark.parametrize("fake", FAKES)
def test_another_version_is_named(tmp_path: Path, fake: str) -> None:
    """A package of the same name, in a process of its own."""
    (tmp_path / "gem" / "utils").mkdir(parents=True)
    (tmp_path / "gem" / "__init__.py").write_text(FAKES[fake])
    (tmp_path / "gem" / "utils" / "__init__.py").touch()
    (tmp_path / "gem" / "utils" / "constants.py").write_text("TERMINAL_STATE = 'end'")
    (tmp_path / "gem_llm-0.9.dist-info").mkdir()
    (tmp_path / "gem_llm-0.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: gem-llm\nVersion: 0.9\n")
    code = (
        f"import sys, asyncio; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from palaestra.envs.gem.env import GemEnv\n"
        "async def go():\n"
        "    env = GemEnv()\n"
        "    await env.reset(seed=0)\n"
        "    await env.step('up')\n"
        "asyncio.run(go())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("palaestra.errors.EnvError: gem-llm 0.9 is not as expected ("), done.stderr
    assert last.endswith("supported is 0.1.0: pip install 'gem-llm==0.1.0'")
