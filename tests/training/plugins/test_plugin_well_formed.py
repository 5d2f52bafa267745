"""Dr.BoT's masks: which episodes broke down, and that their returns still count for their groups."""

from __future__ import annotations

import pytest
import torch
from support.updates import build, episodes, learner

from palaestra.training.plugins.well_formed import Settings, WellFormed, garbled
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Trajectory

MOMENT = Moment(1, 10)


def broken_by(what: str) -> Trajectory:
    episode = episodes()[0]
    match what:
        case "overlong":
            episode.status = "overflow"
        case "truncated":
            episode.steps[-1].truncated = True
        case "incomplete":
            episode.steps[0].action = " \n"
        case "unreadable":
            episode.steps[0].action = "take key \ufffd\ufffd"
        case "repeats":
            episode.nodes[1].ids = [3, 4] * 20
    return episode


@pytest.mark.parametrize("what", ["overlong", "truncated", "incomplete", "unreadable", "repeats", "nothing"])
def test_each_mask_sees_its_own(what: str) -> None:
    episode = broken_by(what)
    none = Settings(overlong=False, truncated=False, incomplete=False, unreadable=False, repeats=0)
    for name in ("overlong", "truncated", "incomplete", "unreadable", "repeats"):
        options = {f: getattr(none, f) for f in none.__struct_fields__}
        found = WellFormed(Settings(**{**options, name: 10 if name == "repeats" else True})).broken(episode)
        assert found == (name == what), name
    assert WellFormed(Settings()).broken(episode) == (what not in ("nothing", "truncated"))


def test_an_n_gram_must_occur_that_often_in_one_message() -> None:
    episode, check = episodes()[0], WellFormed(Settings())
    for count, expected in ((28, False), (29, True), (400, True)):
        episode.nodes[1].ids = [9] * count
        assert check.broken(episode) == expected
    episode.nodes = [episode.nodes[0], episode.nodes[1].__class__(ids=list(range(25)), sampled=True)] * 12
    assert not check.broken(episode), "the same message in every turn"
    prompt = episode.nodes[0]
    prompt.ids = [9] * 100
    assert not check.broken(episode), "an observation"


def test_texts() -> None:
    assert not any(map(garbled, ["go to desk 1", "größe", "东西", "a\tb\nc", ""]))
    assert all(map(garbled, ["\ufffd", "a\x00b", "\x1b[0m", "\ud800"]))


def test_the_return_of_a_masked_episode_counts_for_its_group() -> None:
    played = episodes((1, 0, 0, 1))
    played[0].steps[0].action = ""
    batch = build_rows(played).batch
    algorithm = build("algorithm.name=dr_bot")
    found = algorithm.prepare(algorithm.select(batch, MOMENT), MOMENT)
    assert found.kept is not None
    assert found.kept.tolist() == [False, True, True, True]
    assert found.advantage is not None
    per_row = [float(row[mask][0]) for row, mask in zip(found.advantage, batch.mask, strict=True)]
    assert per_row == [0.0, -0.5, -0.5, 0.5]


def test_masked_tokens_do_not_train() -> None:
    played = episodes((1, 0, 0, 1))
    for episode in played:
        episode.steps[0].action = ""
    subject = learner("algorithm.name=dr_bot")
    before = [p.clone() for p in subject.policy.model.parameters()]
    subject.update(build_rows(played).batch, MOMENT)
    assert all(torch.equal(a, b) for a, b in zip(before, subject.policy.model.parameters(), strict=True))
