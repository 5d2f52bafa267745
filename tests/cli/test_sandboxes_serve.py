"""`palaestra sandboxes serve` as a person uses it: what it says, and what it refuses."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from support.sandbox_serving import needs_bubblewrap, serving_sandboxes

from palaestra.cli.main import main
from palaestra.errors import ConfigError, SandboxDaemonError
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.spec import SandboxSpec

pytest.importorskip("aiohttp", reason="the extra 'remote' is not installed")

from palaestra.sandboxes.remote.client import RemoteBackend

Capture = pytest.CaptureFixture[str]

TOKEN = "a token that is long enough"


def complaint(capsys: Capture, *argv: str) -> str:
    assert main(["sandboxes", "serve", "--backend", "bubblewrap", *argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_what_is_wrong_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PALAESTRA_TOKEN", raising=False)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "short").write_text("short\n")
    (tmp_path / "bytes").write_bytes(b"\xff")
    assert "PALAESTRA_TOKEN" in complaint(capsys, "--host", "0.0.0.0")
    assert "16 characters" in complaint(capsys, "--host", "0.0.0.0", "--token-file", str(tmp_path / "short"))
    assert "holds no token" in complaint(capsys, "--token-file", str(tmp_path / "empty"))
    assert "cannot read the token" in complaint(capsys, "--token-file", str(tmp_path / "absent"))
    assert "cannot read the token" in complaint(capsys, "--token-file", str(tmp_path / "bytes"))
    assert "cannot listen" in complaint(capsys, "--port", "70000")
    assert "--max-sandboxes" in complaint(capsys, "--max-sandboxes", "0")
    assert "--backend" in complaint(capsys, "--backend", "nothing")


def test_without_aiohttp_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from palaestra.cli.main import main; sys.exit(main(['sandboxes', 'serve']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "palaestra: aiohttp is not installed; run: pip install 'palaestra[remote]'\n"


@needs_bubblewrap
def test_options_are_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = ["--token-file", str(tmp_path / "token"), "--max-sandboxes", "1", "--max-memory", "64", "--image", "x"]

    async def go(url: str) -> None:
        spec = SandboxSpec()
        small = SandboxSpec(limits=type(spec.limits)(memory=64 * 2**20))
        with pytest.raises(SandboxDaemonError, match="refuses the token"):
            await RemoteBackend(url, "wrong").start(small)
        async with asyncio.timeout(60), RemoteBackend(url, TOKEN) as backend:
            for wrong, words in ((spec, "limits.memory"), (SandboxSpec(image="/", limits=small.limits), "no image")):
                with pytest.raises(ConfigError, match=words):
                    await backend.start(wrong)
            sandbox = await backend.start(small)
            assert (await sandbox.exec(Exec(argv=("true",)))).ok
            with pytest.raises(SandboxDaemonError, match="no place for 1 more: 1 of 1"):
                await backend.start(small)

    with serving_sandboxes(*options) as served:
        asyncio.run(go(served.url))
        assert served.stop() == 0
        assert served.said() == (
            f"serving bubblewrap sandboxes at {served.url} with a token; Ctrl-C ends it\n"
            "stopped; every sandbox is closed\n"
        )
