"""A verifiers that is absent, or of another version."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from palaestra.envs.verifiers import taskset
from palaestra.envs.verifiers.chosen import Chosen
from palaestra.errors import EnvError, MissingExtraError


def test_another_version_is_named_with_the_one_that_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", ModuleType("verifiers"))
    for found in ("0.1.11", "0.5.0", "0.40", "1.0"):
        monkeypatch.setattr(taskset, "version", lambda name, found=found: found)
        with pytest.raises(EnvError, match=rf"verifiers {found} is installed, and 0.4 is supported.*verifiers==0.4.0"):
            taskset.loaded(Chosen())
    for found in ("0.4", "0.4.0", "0.4.7"):
        monkeypatch.setattr(taskset, "version", lambda name, found=found: found)
        taskset.check_version()


def test_an_absent_one_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", None)
    with pytest.raises(MissingExtraError, match=r"palaestra\[verifiers\]"):
        taskset.check_version()
