"""Published sets: files of the shape that they have, from a folder and from a server that answers as the hub does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tantivy", reason="tantivy is not installed: pip install 'palaestra[search]'")

from palaestra import make
from palaestra.envs.search.sets import SETS
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import ConfigError, DataError, UnknownNameError

TOWNS = [("Velmar", ["Velmar lies on the Orsa.", " It is old."]), ("Sola", ["Sola lies by the sea."])]
RIVERS = [("Orsa", ["The Orsa is 312 km long."]), ("Velmar", ["Another text of that title."])]


def flash(number: int, context: str = "sentences") -> dict[str, Any]:
    """A line of FlashRAG's HotpotQA, or with `content` of its 2WikiMultihopQA."""
    paragraphs = TOWNS + RIVERS
    metadata: dict[str, Any] = {"type": "bridge", "level": "hard"}
    metadata["supporting_facts"] = {"title": ["Velmar", "Orsa", "Orsa"], "sent_id": [0, 0, 0]}
    metadata["context"] = {"title": [title for title, _ in paragraphs], context: [said for _, said in paragraphs]}
    return {
        "id": f"dev_{number}",
        "question": f"How long is river {number}?",
        "golden_answers": ["312 km"],
        "metadata": metadata,
    }


def musique(number: int) -> dict[str, Any]:
    """A line of MuSiQue's own files."""
    paragraphs = [
        {"idx": place, "title": title, "paragraph_text": "".join(said), "is_supporting": title != "Sola"}
        for place, (title, said) in enumerate(TOWNS + RIVERS)
    ]
    return {
        "id": f"2hop__{number}_7",
        "paragraphs": paragraphs,
        "question": f"How long is the Orsa, question {number}?",
        "question_decomposition": [{"id": 7, "question": "x", "answer": "y", "paragraph_support_idx": 0}],
        "answer": "312 km",
        "answer_aliases": ["312 kilometres"],
        "answerable": number != 3,
    }


def plain(number: int) -> dict[str, Any]:
    """A line of FlashRAG's Bamboogle or Natural Questions."""
    return {"id": f"test_{number}", "question": f"Who is {number}?", "golden_answers": ["Ida Brandt", "Brandt"]}


LINES = {
    "hotpotqa": flash,
    "2wikimultihopqa": lambda number: flash(number, "content"),
    "musique": musique,
    "bamboogle": plain,
    "nq": plain,
}


def text_of(name: str, count: int = 20) -> str:
    return "".join(json.dumps(LINES[name](number)) + "\n" for number in range(count))


def downloaded(folder: Path, name: str) -> dict[str, str]:
    """A folder with a set's files, and the parameters that name it."""
    for file in filter(None, (SETS[name].train, SETS[name].test)):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text_of(name))
    if SETS[name].paragraphs:
        return {"data": str(folder)}
    corpus = folder / "wiki.jsonl"
    corpus.write_text('{"id": "0", "contents": "\\"Ida Brandt\\"\\nIda Brandt is a mayor."}\n')
    return {"data": str(folder), "corpus": str(corpus)}


async def solve(task: Task) -> list[str]:
    async with make(task.env) as env:
        await env.reset(task=task)
        actions: list[str] = []
        while True:
            actions.append(await env.oracle())
            step = await env.step(actions[-1])
            if step.terminated:
                assert step.reward == 1.0
                return actions


@pytest.mark.parametrize("name", ["hotpotqa", "2wikimultihopqa", "musique"])
def test_paragraphs_are_the_corpus(name: str, tmp_path: Path) -> None:
    suite = load_suite(f"search/{name}:test", **downloaded(tmp_path, name))
    assert len(suite) == (19 if name == "musique" else 20), "what cannot be answered is left out"
    assert suite[0].kind == ("2hop" if name == "musique" else "bridge")
    actions = asyncio.run(solve(suite[0]))
    assert actions[0] == "<search>Velmar</search>"
    assert actions[-1] == "<answer>312 km</answer>"
    assert len([action for action in actions if action.startswith("<read>")]) == 3, "both of one title are known apart"

    async def corpus() -> tuple[str, str]:
        async with make(suite[0].env) as env:
            await env.reset(task=suite[0])
            found = await env.step("<search>Velmar Sola Orsa</search>")
            return found.observation, (await env.step("<read>Velmar</read>")).observation

    found, read = asyncio.run(corpus())
    assert found.count("\n[p") == 4, "each paragraph once, however many questions have it"
    assert read == "<result>\nVelmar\nVelmar lies on the Orsa. It is old.\n</result>"


@pytest.mark.parametrize("name", ["bamboogle", "nq"])
def test_sets_without_paragraphs_need_a_corpus(name: str, tmp_path: Path) -> None:
    params = downloaded(tmp_path, name)
    assert len(asyncio.run(solve(load_suite(f"search/{name}:test", **params)[0]))) == 2
    with pytest.raises(ConfigError, match="corpus=FILE"):
        load_suite(f"search/{name}:test", data=params["data"])


def test_validation_is_a_part_of_the_training_questions(tmp_path: Path) -> None:
    params = downloaded(tmp_path, "hotpotqa")
    (tmp_path / SETS["hotpotqa"].train).write_text(text_of("hotpotqa", 300))
    suites = {split: load_suite(f"search/hotpotqa:{split}", **params) for split in ("train", "validation", "test")}
    assert len(suites["train"]) + len(suites["validation"]) == 300
    assert 10 < len(suites["validation"]) < 60
    assert len(load_suite("search/hotpotqa:test", **params, questions=7)) == 7
    with pytest.raises(UnknownNameError, match="bamboogle"):
        load_suite("search/bamboogle:train", **downloaded(tmp_path, "bamboogle"))


def test_damaged_sets_are_refused(tmp_path: Path) -> None:
    params = downloaded(tmp_path, "musique")
    (tmp_path / SETS["musique"].test).write_text('{"id": "a", "question": "x"}\n')
    with pytest.raises(DataError, match="line 1"):
        load_suite("search/musique:test", **params)
    with pytest.raises(DataError, match="no dev.jsonl"):
        load_suite("search/hotpotqa:test", data=str(tmp_path))


class Hub(BaseHTTPRequestHandler):
    """`/datasets/OWNER/NAME/resolve/REVISION/FILE` of every set, at the revisions that we name."""

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        self._answer(head=False)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, head: bool) -> None:
        for name, one in SETS.items():
            if self.path == f"/datasets/{one.repo}/resolve/{one.revision}/{one.test}":
                return self._send(200, text_of(name).encode(), one.revision, head)
        return self._send(404, b"", "", head)

    def _send(self, status: int, body: bytes, commit: str, head: bool) -> None:
        self.send_response(status)
        for key, value in (("X-Repo-Commit", commit), ("ETag", f'"{hashlib.sha256(body).hexdigest()}"')):
            if commit:
                self.send_header(key, value)
        if not commit:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


PROGRAM = """
import sys
from palaestra.envs.tasks import load_suite
for name in ("hotpotqa", "2wikimultihopqa", "musique", "bamboogle", "nq"):
    params = {"corpus": sys.argv[1]} if name in ("bamboogle", "nq") else {}
    print(name, len(load_suite(f"search/{name}:test", **params)))
"""


def test_every_set_comes_from_the_hub(hub: str, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="not installed: pip install 'palaestra[hub]'")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"title": "Ida Brandt", "text": "Ida Brandt is a mayor."}\n')
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environ |= {"HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": hub, "HF_HUB_DISABLE_TELEMETRY": "1"}
    for offline in ("", "1"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(corpus)],
            env=environ | ({"HF_HUB_OFFLINE": offline} if offline else {}),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split("\n")[:3] == ["hotpotqa 20", "2wikimultihopqa 20", "musique 19"]
        assert done.stdout.split("\n")[3:] == ["bamboogle 20", "nq 20", ""]
