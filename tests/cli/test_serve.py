"""`palaestra serve` as a person uses it: what it prints, how it ends, what it refuses."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from support.serving import Served, serving

from palaestra.cli.main import main

pytest.importorskip("aiohttp", reason="the extra 'remote' is not installed")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "how-to"

Capture = pytest.CaptureFixture[str]


def get(served: Served, path: str) -> object:
    with urllib.request.urlopen(f"{served.url}{path}", timeout=10) as response:
        return json.load(response)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    with serving("test/Ledger-v0", "test/Limited") as served:
        assert get(served, "/health") == {"status": "ok"}
        listed = get(served, "/envs")
        assert isinstance(listed, list)
        assert [one["id"] for one in listed] == ["test/Ledger-v0", "test/Limited-v1"]
        assert served.stop(number) == 0
        said = served.said().splitlines()
        assert said[0] == f"serving 2 environments at {served.url} without a token; Ctrl-C ends it"
        assert said[1] == "stopped; every environment is closed"
        assert len(said) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_ends_it_though_an_environment_blocks(number: signal.Signals, code: int) -> None:
    websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")
    with serving("test/Bad-v0", "--allow-arguments") as served:
        client = websocket.create_connection(
            served.url.replace("http", "ws") + "/session", timeout=20, suppress_origin=True
        )
        client.send(json.dumps({"type": "Open", "id": "test/Bad-v0", "kwargs": {"how": "hang", "when": "reset"}}))
        assert json.loads(client.recv())["type"] == "Made"
        client.send(json.dumps({"type": "ResetCall", "seed": 1}))
        time.sleep(0.5)
        served.process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            served.process.wait(0.5)
        served.process.send_signal(number)
        assert served.process.wait(5) == code
        assert served.said().splitlines()[1:] == ["palaestra: interrupted"]
        client.shutdown()


def test_everything_that_is_registered_is_served() -> None:
    with serving() as served:
        listed = get(served, "/envs")
        assert isinstance(listed, list)
        ids = {one["id"] for one in listed}
        assert {"alfworld/Household-v0", "test/Able-v0"} <= ids
        assert "test/Elsewhere-v0" not in ids


def test_it_stops_though_connections_are_open() -> None:
    with serving() as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as silent:
            began = time.monotonic()
            assert served.stop() == 0
            assert time.monotonic() - began < 15
            assert silent.recv(1) == b""


def complaint(capsys: Capture, *argv: str) -> str:
    assert main(["serve", *argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_what_is_wrong_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALAESTRA_TOKEN", raising=False)
    assert "PALAESTRA_TOKEN" in complaint(capsys, "--host", "0.0.0.0")
    monkeypatch.setenv("PALAESTRA_TOKEN", "short")
    assert "16 characters" in complaint(capsys, "--host", "0.0.0.0")
    assert "alfworld/Household-v0" in complaint(capsys, "alfworld/Houshold-v0")
    assert "cannot listen" in complaint(capsys, "--port", "70000")
    assert "--sessions" in complaint(capsys, "--sessions", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot listen" in complaint(capsys, "--port", str(taken.getsockname()[1]))


def test_without_aiohttp_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['aiohttp'] = None; from palaestra.cli.main import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "palaestra: aiohttp is not installed; run: pip install 'palaestra[remote]'\n"


def test_the_client_of_the_documentation_plays(tmp_path: Path) -> None:
    pytest.importorskip("websocket", reason="websocket-client is not installed")
    quiz, client = (
        re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)[which]
        for page, which in (("register-an-environment.md", 0), ("serve-environments.md", 1))
    )
    (tmp_path / "served_quiz.py").write_text(quiz)
    with serving("quiz/Capitals-v0", "--import", str(tmp_path / "served_quiz.py")) as served:
        program = client.replace("ws://127.0.0.1:8642", served.url.replace("http", "ws"))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "What is the capital of Nepal? Right. 1.0\n"


UPGRADE = (
    b"GET /session HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
ATTACKS = {
    "nothing": b"",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50,
    "half a header": b"GET /session HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    "headers without end": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000,
    "one long header": b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000_000,
    "a body without end": b"POST /envs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n"
    + b"y" * 100_000,
    "many requests": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000,
    "a frame of 1 TiB": UPGRADE + b"\x82\xff\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00" + b"y" * 100_000,
    "half a frame": UPGRADE + b"\x82\xfe\xff\xff\x00\x00\x00\x00" + b"y" * 100,
    "parts without end": UPGRADE + (b"\x02" + b"\x00\x80\x00\x00\x00\x00" * 20_000),
    "a reserved frame": UPGRADE + b"\xff\x80\x00\x00\x00\x00",
    "no mask": UPGRADE + b"\x82\x02\xc1\xc1",
}


def memory(served: Served) -> int:
    """Resident bytes of the server."""
    return int(Path(f"/proc/{served.process.pid}/statm").read_text(encoding="ascii").split()[1]) * 4096


def test_hostile_clients_cost_little() -> None:
    with serving("--sessions", "20", "test/Ledger-v0") as served, contextlib.ExitStack() as stack:
        host, port = served.url.removeprefix("http://").split(":")
        get(served, "/health")
        before = memory(served)
        for said in [*ATTACKS.values()] * 4:
            attacker = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            with contextlib.suppress(OSError):
                attacker.sendall(said)
        assert get(served, "/health") == {"status": "ok"}
        assert memory(served) - before < 64 * 2**20
        assert served.stop() == 0
        assert len(served.said().splitlines()) == 2
