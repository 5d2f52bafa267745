"""Ctrl-C waits for the end of an import, in real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

_MAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from palaestra import interrupts
from palaestra.__main__ import main
interrupts.PATIENCE_SECONDS = {patience}
sys.path.insert(0, {folder!r})
sys.argv = "palaestra eval alfworld:test --agent random --episodes 100000 --import imported".split()
sys.exit(main())
"""


def _interrupted(folder: Path, module: str, patience: float) -> subprocess.CompletedProcess[str]:
    (folder / "imported.py").write_text(module)
    script = _MAIN.format(patience=patience, folder=str(folder))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("raising", ["raise", "pass"])
def test_an_import_that_would_swallow_or_be_broken_by_the_interrupt_ends_first(tmp_path: Path, raising: str) -> None:
    module = f"""
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
try:
    time.sleep(0.3)
except BaseException:
    print("broken into")
    {raising}
print("imported")
"""
    done = _interrupted(tmp_path, module, patience=30.0)
    assert done.stdout.startswith("imported\n")
    assert (done.returncode, done.stderr) == (130, "palaestra: interrupted\n")


def test_an_import_that_hangs_is_broken_into_after_a_while(tmp_path: Path) -> None:
    module = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(50)\nprint('imported')\n"
    done = _interrupted(tmp_path, module, patience=0.2)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "palaestra: interrupted\n")


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    script = """
import os, signal
from palaestra.interrupts import interrupting_after_imports
signal.signal(signal.SIGINT, signal.SIG_IGN)
with interrupting_after_imports():
    os.kill(os.getpid(), signal.SIGINT)
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_the_handler_before_comes_back() -> None:
    from palaestra.interrupts import cancelling, interrupting_after_imports

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interrupting_after_imports():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
            with cancelling():
                assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
