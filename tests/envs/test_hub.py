"""Files from a hub, against a server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from palaestra.envs.hub import dataset_file
from palaestra.errors import DataError, MissingExtraError

pytest.importorskip("huggingface_hub", reason="not installed: pip install 'palaestra[hub]'")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = b'{"problem": "1 + 1", "answer": "2"}\n'


class Hub(BaseHTTPRequestHandler):
    """`/datasets/OWNER/NAME/resolve/REVISION/FILE`, of one data set with one file."""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, body: bytes) -> None:
        self.server.seen.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]
        status, code = self._status()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
        else:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if not code:
            self.wfile.write(body)

    def _status(self) -> tuple[int, str]:
        place, _, rest = self.path.partition("/resolve/")
        if place.endswith("/ours/gated"):
            return 403, "GatedRepo"
        if place != "/datasets/ours/sums":
            return 401, "RepoNotFound"
        revision, _, file = rest.partition("/")
        if revision not in ("main", COMMIT):
            return 404, "RevisionNotFound"
        return (200, "") if file == "data/test.jsonl" else (404, "EntryNotFound")


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


PROGRAM = """
import sys
from palaestra.envs.hub import dataset_file
from palaestra.errors import DataError
try:
    print(dataset_file(*sys.argv[1:]).read_text(), end="")
except DataError as error:
    print("DataError:", error)
"""


def get(cache: Path, endpoint: str, *arguments: str, **environ: str) -> str:
    """What a process of its own says: huggingface_hub reads its settings when it is imported."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    variables |= {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", **environ}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def address(hub: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{hub.server_address[1]}"


def test_a_file_is_downloaded_once_and_then_found_offline(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    wanted = ("ours/sums", "data/test.jsonl", COMMIT)
    assert get(tmp_path, address(hub), *wanted) == CONTENT.decode()
    asked = list(hub.seen)  # type: ignore[attr-defined]
    assert f"GET /datasets/ours/sums/resolve/{COMMIT}/data/test.jsonl" in asked
    assert get(tmp_path, address(hub), *wanted, HF_HUB_OFFLINE="1") == CONTENT.decode()
    assert hub.seen == asked  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ours/none", "data/test.jsonl", "main"), "no such data set"),
        (("ours/gated", "data/test.jsonl", "main"), "gated"),
        (("ours/sums", "data/other.jsonl", "main"), "no such file"),
        (("ours/sums", "data/test.jsonl", "v9"), "no such revision"),
        (("not a name", "data/test.jsonl", "main"), "cannot get"),
    ],
)
def test_what_is_not_there_is_named_in_a_line(
    hub: ThreadingHTTPServer, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    said = get(tmp_path, address(hub), *arguments)
    assert said.startswith("DataError: ")
    assert message in said
    assert said.endswith("name its folder: data=FOLDER\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("offline", ["1", pytest.param("0", marks=pytest.mark.slow)], ids=["offline", "nobody answers"])
def test_no_connection_is_told_as_such(tmp_path: Path, offline: str) -> None:
    said = get(tmp_path, "http://127.0.0.1:9", "ours/sums", "data/test.jsonl", "main", HF_HUB_OFFLINE=offline)
    assert "the hub cannot be reached, or HF_HUB_OFFLINE is set" in said


@pytest.mark.parametrize("file", ["../secrets", "a/../../b", "/etc/passwd", ""])
def test_a_path_out_of_the_data_set_is_refused(file: str) -> None:
    with pytest.raises(DataError, match="not the path of a file"):
        dataset_file("ours/sums", file, "main")


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"palaestra\[hub\]"):
        dataset_file("ours/sums", "data/test.jsonl", "main")
