"""The report as a document: what it says, what it leaves out, and that no run can smuggle markup into it."""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from palaestra.errors import DataError, PalaestraError
from palaestra.trajectories.record import Node, StepRecord, Trajectory
from palaestra.trajectories.report import write_report
from palaestra.trajectories.report.run import Run
from palaestra.trajectories.report.samples import samples
from palaestra.trajectories.report.tokens import pieces
from palaestra.trajectories.store import TrajectoryWriter

write_run: Callable[..., Path] = runpy.run_path(str(Path(__file__).with_name("synthetic_run.py")))["write_run"]


class Page(HTMLParser):
    """Elements and text of a page; fails on tags that do not nest."""

    void = {"meta", "br", "img", "input", "link", "hr"}

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def count(self, name: str, class_: str = "") -> int:
        wanted = set(class_.split())
        return sum(tag == name and wanted <= set((a.get("class") or "").split()) for tag, a in self.tags)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "demo", iterations=24)


def test_the_page_tells_the_whole_story(run: Path, tmp_path: Path) -> None:
    grpo = write_run(tmp_path / "grpo", iterations=4, algorithm="grpo")
    page = Page(write_report(run, compare={"GRPO": grpo}, out=tmp_path / "r.html"))
    for text in ("EPO on alfworld/small:test", "48\u202f%", "86\u202f%", "4:11\u202fmin", "1.24\u202fGB", "pick_cool"):
        assert text in page.text
    assert page.count("g", "bar") == 5
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == [
        "what-was-learned",
        "by-task-type",
        "entropy",
        "the-entropy-corridor",
        "entropy-and-success",
        "episodes",
        "vitals",
        "recipe",
    ]


def test_a_run_without_a_corridor_has_no_corridor_section(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path / "grpo", iterations=4, algorithm="grpo")))
    assert "the-entropy-corridor" not in [attrs.get("id") for _, attrs in page.tags]
    assert "GRPO on alfworld/small:test" in page.text


def test_the_page_needs_nothing_from_outside(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    source = path.read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", source)
    tags = Page(path).tags
    assert not [t for t, attrs in tags if attrs.get("src") or attrs.get("href") or t in ("link", "iframe", "img")]
    policy = next(attrs["content"] for _, attrs in tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert not list(run.glob("*.part"))


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>"


def evil_trajectory(solved: bool) -> Trajectory:
    step = StepRecord(observation=EVIL, action=EVIL, reward=1.0, completion=1)
    nodes = [Node(ids=[0]), Node(ids=[0, 1], sampled=True, logprobs=[-1, -2], entropies=[0.5, 0.1])]
    return Trajectory(
        id=EVIL, env=EVIL, task=EVIL, kind=EVIL, success=solved, status="error", error=EVIL, nodes=nodes,
        steps=[step], final_observation=EVIL,
    )  # fmt: skip


def test_nothing_in_a_run_becomes_markup(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "eval").mkdir(parents=True)
    rate = {"value": 0.5, "n": 2, "low": 0.1, "high": 0.9}
    result = {"suite": EVIL, "agent": EVIL, "success": rate, "by_kind": {EVIL: {"success": rate}}}
    (run / "eval" / "rl.json").write_text(json.dumps(result))
    (run / "summary.json").write_text(json.dumps({"algorithm": EVIL, "success_warm": rate, "seed": EVIL}))
    (run / "recipe.yaml").write_text(EVIL)
    rows = [{"kind": "train", "iteration": 0, "success": 0.5, "entropy_by_turn": [0.1, EVIL]}]
    rows += [{"kind": "eval", "iteration": 0, "tag": EVIL, "success": rate}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with TrajectoryWriter(run / "trajectories" / "eval-rl.ptj") as writer:
        writer.append(evil_trajectory(True))
        writer.append(evil_trajectory(False))
    page = Page(write_report(run, compare={EVIL: result}, decode=lambda ids: [EVIL] * len(ids)))
    assert page.count("script") == 1
    assert page.count("img") == 0
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert page.text.count(EVIL) >= 8, "it is shown, as text"


def test_odd_values_in_the_metrics_are_left_out(tmp_path: Path) -> None:
    odd = [
        '{"kind": "train", "iteration": 0, "success": 0.5, "entropy": NaN, "entropy_by_turn": [0.1, null, "x"]}',
        '{"kind": "train", "iteration": 1, "success": "many", "reward": 1e999, "entropy_by_turn": 7}',
        '{"kind": "train", "iteration": null, "success": 0.5}',
        "[1, 2]",
        '{"kind": "train", "iteration": 2, "success": 0.75, "surro',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(odd))
    page = Page(write_report(tmp_path))
    lines = [attrs for tag, attrs in page.tags if tag == "path" and "train" in (attrs.get("class") or "")]
    assert {line["data-points"] for line in lines} == {"1", "2"}


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "iteration": 0, "success": 0.5}\n')
    assert "Training run" in Page(write_report(tmp_path)).text


def test_a_resumed_iteration_counts_once(tmp_path: Path) -> None:
    rows = [{"kind": "train", "iteration": k, "success": v} for k, v in ((0, 0.1), (1, 0.2), (1, 0.3), (0, 0.1))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["success"] for row in Run.read(tmp_path).train] == [0.1, 0.3]


def test_a_torn_trajectory_file_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", iterations=3)
    file = run / "trajectories" / "eval-rl.ptj"
    os.truncate(file, file.stat().st_size // 2)
    (run / "trajectories" / "train.ptj").write_bytes(b"no such format")
    with pytest.warns(UserWarning, match="not a Palaestra trajectory file; the report leaves the rest out"):
        sources = {sample.source for sample in samples(Run.read(run))}
    assert sources == {"after training", "before training"}


def test_samples_show_both_outcomes_and_the_same_tasks(run: Path) -> None:
    chosen = samples(Run.read(run))
    assert {s.source for s in chosen} == {"after training", "before training", "last iteration", "first iteration"}
    after = {s.trajectory.task for s in chosen if s.source == "after training"}
    before = {s.trajectory.task for s in chosen if s.source == "before training"}
    assert len(after & before) >= 3
    assert {s.trajectory.success for s in chosen} == {True, False}
    assert {s.trajectory.id.split("/")[0] for s in chosen if s.source == "last iteration"} == {"23"}


def test_without_a_tokenizer_actions_are_shown_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", iterations=3)
    tokens = Page(write_report(run)).count("span", "token")
    (run / "model" / "tokenizer.json").write_text("{broken")
    page = Page(write_report(run))
    assert 0 < page.count("span", "token") == page.count("li", "turn") < tokens


def test_pieces_put_spaces_where_the_tokenizer_does() -> None:
    words = ["Hello", "world", "!"]

    def decode(ids: list[int], skip_special_tokens: bool) -> str:
        return " ".join(words[i] for i in ids)

    assert pieces(decode, [0, 1, 2]) == ["Hello", " world", " !"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no run directory"):
        write_report(tmp_path)


def test_anything_that_is_a_result_can_be_compared(run: Path, tmp_path: Path) -> None:
    file = run / "eval" / "rl.json"
    as_struct = msgspec.defstruct("Result", [("suite", str), ("success", dict)])
    content = json.loads(file.read_text())
    others = {"A": run, "B": file, "C": content, "D": as_struct(content["suite"], content["success"])}
    page = Page(write_report(run, compare=others, out=tmp_path / "r.html"))  # type: ignore[arg-type]
    assert page.count("g", "bar agent-other") == 4


@pytest.mark.parametrize(
    ("other", "message"), [("nowhere", "there is no run or evaluation at"), ({"success": 1}, "it has no success rate")]
)
def test_what_cannot_be_compared_is_named(run: Path, other: object, message: str) -> None:
    with pytest.raises(DataError, match=f"cannot compare with 'GRPO': {message}"):
        write_report(run, compare={"GRPO": other})  # type: ignore[dict-item]


def test_a_report_that_cannot_be_written_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(PalaestraError, match=r"cannot write .*nowhere"):
        write_report(run, out=tmp_path / "nowhere" / "r.html")


def test_the_report_needs_no_torch() -> None:
    code = "import sys, palaestra.trajectories.report; sys.exit('torch' in sys.modules or 'tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
