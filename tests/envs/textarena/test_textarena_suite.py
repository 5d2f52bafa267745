"""The textarena suite, its table of games and the grammar of their moves; none of it needs the package."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.tasks import load_suite
from palaestra.envs.textarena.env import TextArenaEnv
from palaestra.envs.textarena.games import GAMES, REFUSED
from palaestra.envs.textarena.moves import all_moves, draw, listed
from palaestra.errors import EnvError, UnknownNameError


def test_tasks_name_game_and_seed() -> None:
    suite = load_suite("textarena/Nim-v0:validation", max_turns=9)
    assert len(suite) == 1000
    assert (suite[3].name, suite[3].kind, suite[3].seed) == ("Nim-v0-3", "Nim-v0", 100_003)
    assert suite[3].params == {"game": "Nim-v0", "max_turns": 9}


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UnknownNameError, match="'Nim-v0'"):
        load_suite("textarena/Nimm-v0:train")
    with pytest.raises(UnknownNameError, match="split"):
        load_suite("textarena:dev")
    with pytest.raises(UnknownNameError, match="game"):
        TextArenaEnv("Nim")


@pytest.mark.parametrize(
    ("game", "reason"),
    [
        ("Wordle-v0", "NLTK"),
        ("Chess-v0", "Python 3.12"),
        ("Debate-v0", "language model"),
        ("SimpleNegotiation-v0", "talk"),
        ("Tak-v0", "fails"),
    ],
)
def test_what_cannot_be_played_is_refused_with_the_reason(game: str, reason: str) -> None:
    with pytest.raises(EnvError, match=rf"{game} cannot be played: .*{reason}"):
        load_suite(f"textarena/{game}:test")


def test_a_game_is_played_or_refused() -> None:
    assert not set(GAMES) & set(REFUSED)
    assert len(GAMES) == 148
    assert all(game.moves for game in GAMES.values() if game.players > 1)


def test_the_page_lists_every_id() -> None:
    page = (Path(__file__).parents[3] / "docs" / "environments" / "textarena.md").read_text()
    written = {
        id for line in page.splitlines() if line.startswith("|") for id in re.findall(r"[\w/-]*-v0[\w/-]*", line)
    }
    named = {id if id in GAMES or id in REFUSED else "" for id in written}
    assert set(GAMES) | set(REFUSED) == named - {""}


def test_templates_are_places_with_choices() -> None:
    assert all_moves(("[play {1-3}]",)) == ["[play 1]", "[play 2]", "[play 3]"]
    assert all_moves(("[{a-b}{9-10}]", "[{x|yes}]")) == ["[a9]", "[a10]", "[b9]", "[b10]", "[x]", "[yes]"]
    assert all_moves(()) == []


@given(st.sampled_from(sorted(id for id, game in GAMES.items() if game.moves)), st.integers(0, 2**32))
def test_a_drawn_move_is_one_of_the_grammar(id: str, seed: int) -> None:
    templates = GAMES[id].moves
    move = draw(templates, random.Random(seed))
    assert any(re.fullmatch(re.sub(r"\\\{[^{}]*\\\}", ".{1,12}", re.escape(each)), move) for each in templates)
    assert "{" not in move
    assert move == draw(templates, random.Random(seed))


def test_the_last_list_of_legal_moves_counts() -> None:
    said = "Available Moves: '[0]', '[1]'\nthen\nAvailable Moves: '[1]', [X 2]\nGo [on]."
    assert listed(said) == ["[1]", "[X 2]"]
    assert listed("Your available actions are: '[check]', '[bet]'") == ["[check]", "[bet]"]
    assert listed("nothing [here]") == []
