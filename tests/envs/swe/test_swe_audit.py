"""Attack agents: none is paid, on any back end, and the oracle is."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.swe_episode import need_bubblewrap, need_docker

from palaestra.envs.swe import instances
from palaestra.envs.swe.audit import ATTACKS, Attack
from palaestra.envs.swe.audit.attack import files_of
from palaestra.envs.swe.audit.play import Finding, audit
from palaestra.envs.tasks import Task

BACKENDS = {"bubblewrap": ("", need_bubblewrap), "docker": ("palaestra-base:test", need_docker)}


@pytest.fixture(scope="module", params=BACKENDS)
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    image, need = BACKENDS[request.param]
    need()
    folder = str(tmp_path_factory.mktemp("audit"))
    task = Task(env="swe/Repository-v0", name="stack", params={"format": "sealed", "folder": folder, "image": image})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(instances._READERS, "sealed", "support.swe_sealed")
        found = asyncio.run(audit(task, ATTACKS, backend=request.param, at_once=6))
    return {finding.attack: finding for finding in found}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [attack.name for attack in ATTACKS])
def test_no_attack_is_paid(findings: dict[str, Finding], name: str) -> None:
    finding = findings[name]
    assert finding.ok, finding
    assert finding.score == 0
    assert finding.seen


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_oracle_is(findings: dict[str, Finding]) -> None:
    assert findings["oracle"].ok
    assert findings["oracle"].score == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_passes_everything_is_caught(findings: dict[str, Finding]) -> None:
    names = ("patch the reports", "patch the calls", "swallow exceptions", "a hook by garbage collection")
    for name in (*names, "the examiner's own reporter"):
        assert "as they are and as decoys" in findings[name].seen, findings[name]


def test_names_are_unique_and_told() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) > 40
    assert all(attack.tried and "\n" not in attack.tried for attack in ATTACKS)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_scripts_are_python(attack: Attack) -> None:
    compile(attack.program(["src/a.py"], ["tests/t.py"]), attack.name, "exec")


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if "inject(" in attack.script], ids=lambda a: a.name)
def test_what_is_injected_is_python(attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "a.py"
    source.write_text("X = 1\n")
    space: dict[str, Any] = {}
    exec(compile(attack.program(["a.py"], ["t.py"]), attack.name, "exec"), space)
    injected = source.read_text()
    assert len(injected) > 10
    compile(injected, "a.py", "exec")


def test_files_of_a_patch() -> None:
    patch = (
        "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@\n-a\n+b\n"
        "--- /dev/null\n+++ b/new.py\n@@\n+b\n--- a/gone.py\n+++ /dev/null\n--- a/README\n+++ b/README\n"
    )
    assert files_of(patch) == ["x.py"]
