"""Ctrl-C while the learner is elsewhere, without a cluster."""

from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install 'palaestra[ray]'")

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from palaestra.config import parse_recipe
from palaestra.distributed import ranks
from palaestra.errors import TrainingError


class Mailbox:
    """Called as the actor is."""

    def __init__(self) -> None:
        self.stopped = False
        self.stop = self.take = self

    def remote(self) -> list[Any]:
        self.stopped = True
        return []


def failed(cause: Exception) -> RayTaskError:
    return RayTaskError("train", "its traceback", cause)  # type: ignore[no-untyped-call]


def watched(monkeypatch: pytest.MonkeyPatch, after: RayError) -> Mailbox:
    """Ctrl-C, then `after` from a rank."""
    coming: list[BaseException] = [KeyboardInterrupt(), after]

    def over(running: Any) -> bool:
        raise coming.pop(0)

    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(ranks, "_over", over)
    mailbox = Mailbox()
    ranks._watched([[]], mailbox, None)
    return mailbox


@pytest.mark.parametrize("after", [RayActorError(), failed(ranks.Interrupted("too early"))], ids=["lost", "not begun"])
def test_an_end_that_was_asked_for_is_no_reason_to_begin_again(
    monkeypatch: pytest.MonkeyPatch, after: RayError
) -> None:
    with pytest.raises(KeyboardInterrupt):
        watched(monkeypatch, after)


def test_what_goes_wrong_at_the_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="the disk is full"):
        watched(monkeypatch, failed(TrainingError("the disk is full")))


def test_an_interrupt_before_training_is_sent_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def loading(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(ranks, "train", loading)
    recipe = parse_recipe("name: x\ntasks: {train: 'a:train'}\n", [])
    with pytest.raises(ranks.Interrupted):
        ranks.Rank(ranks.Errand(recipe, False, (), (), ".")).train(False, None, {"RANK": "1"})
