"""What is kept: made once, by one thread, while others go on."""

from __future__ import annotations

import threading

import pytest

from palaestra.envs.search.kept import Kept


def test_only_who_wants_the_same_waits() -> None:
    kept, go, made = Kept[int](8), threading.Event(), list[int]()

    def slowly() -> int:
        go.wait(10)
        made.append(1)
        return 1

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(kept.get("slow", slowly))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert kept.get("quick", lambda: 2) == 2
    assert not made
    go.set()
    for thread in threads:
        thread.join(10)
    assert (found, made) == ([1] * 4, [1])


def test_the_oldest_goes_first_and_errors_are_not_kept() -> None:
    kept, made = Kept[str](2), list[str]()
    for key in ("a", "b", "a", "c", "a", "b"):
        kept.get(key, lambda key=key: made.append(key) or key)
    assert made == ["a", "b", "c", "b"]
    with pytest.raises(ZeroDivisionError):
        kept.get("d", lambda: str(1 // 0))
    assert kept.get("d", lambda: "now") == "now"
