"""The math suite: levels, splits, data of the user's, and every answer of the real sets."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.math import arithmetic
from palaestra.envs.math.answer import last_answer, readable
from palaestra.envs.math.equal import equal
from palaestra.envs.math.judge import JUDGES
from palaestra.envs.math.judging import Question
from palaestra.envs.math.splits import split_of
from palaestra.envs.tasks import SPLITS, load_suite
from palaestra.errors import ConfigError, DataError, UnknownNameError


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


PROBLEMS = [{"problem": f"What is {i} + {i}?", "answer": 2 * i} for i in range(200)]


@given(st.integers(1, 8), st.sampled_from(SPLITS), st.integers(0, 999))
def test_arithmetic_is_right_short_and_in_its_split(difficulty: int, split: str, index: int) -> None:
    problem = arithmetic.problem(split, index, difficulty, choices=5)
    text = problem.problem.removesuffix(" = ?")
    assert re.fullmatch(r"\d+( [-+*] \d+)*", text)
    assert eval(text) == int(problem.answer)
    assert len(text) < 60
    assert split_of(text) == split
    assert problem.answer in problem.choices
    assert problem == arithmetic.problem(split, index, difficulty, choices=5)


def test_arithmetic_is_varied_and_its_splits_share_no_problem() -> None:
    texts = {
        split: {task.params["problem"] for task in load_suite(f"math:{split}", difficulty=3)[:1000]} for split in SPLITS
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["test"] & texts["validation"]
    assert all(len(found) > 900 for found in texts.values())


def test_a_task_is_complete() -> None:
    task = load_suite("math/arithmetic:test", difficulty=4)[7]
    assert task.name == "arithmetic-4-7"
    assert task.env == "math/Answer-v0"
    assert msgspec.json.decode(msgspec.json.encode(task.params)) == {**task.params, "choices": []}


def test_a_file_is_split_by_what_its_problems_say(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", PROBLEMS)
    again = [{**PROBLEMS[3], "problem": "  WHAT is 3 + 3?  "}, *reversed(PROBLEMS)]
    other = write(tmp_path / "other.jsonl", again)
    found: dict[str, set[str]] = {}
    for split in SPLITS:
        texts = [task.params["problem"] for task in load_suite(f"math/file:{split}", data=path)]
        reordered = {task.params["problem"] for task in load_suite(f"math/file:{split}", data=other)}
        assert {text.casefold().strip() for text in reordered} == {text.casefold() for text in texts}
        assert len(texts) == len(set(texts)) == len(reordered)
        found[split] = set(texts)
    assert sum(map(len, found.values())) == len(PROBLEMS) == len(set().union(*found.values()))
    assert len(found["train"]) > 130


def test_sets_are_read_from_a_folder_a_file_and_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "aime24"
    folder.mkdir()
    content = json.dumps({"problem": "p", "answer": "025", "solution": "long"}) + "\n"
    (folder / "test.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    monkeypatch.setenv("PALAESTRA_DATA", str(tmp_path))
    for params in ({}, {"data": str(folder)}, {"data": str(folder / "test.jsonl.gz")}):
        (task,) = load_suite("math/aime24:test", **params)
        assert task.params["answer"] == "025"
        assert task.kind == "aime24"


def test_the_judge_can_be_equality_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"problem": "p", "answer": "7"}])
    (plain,), (exact,) = (load_suite("math/aime25:test", data=path, judge=name) for name in ("math-verify", "exact"))
    assert plain.params == {**exact.params, "judge": "math-verify"}
    assert exact.params["judge"] == "exact"


def test_parquet_reads_as_json_lines_do(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="not installed: pip install 'palaestra[hub]'")
    import pyarrow

    rows = [{"prompt": record["problem"], "solution": str(record["answer"]), "x": [1]} for record in PROBLEMS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    plain = load_suite("math/file:test", data=write(tmp_path / "mine.jsonl", PROBLEMS))
    packed = load_suite("math/dapo:test", data=str(tmp_path))
    assert [task.params["answer"] for task in packed] == [task.params["answer"] for task in plain]


@pytest.mark.parametrize(
    ("record", "gold"),
    [
        ({"question": "q", "answer": "1 + 1 = 2\n#### 1,080"}, "1080"),
        ({"problem": "p", "solution": r"so $\boxed{\frac12}$"}, r"\frac12"),
        ({"prompt": "p", "solution": "34"}, "34"),
        ({"problem": "p", "answer": 7, "solution": r"\boxed{8}"}, "7"),
        ({"problem": "p", "answer": 0.5}, "0.5"),
    ],
)
def test_where_the_answer_of_a_record_is(tmp_path: Path, record: dict[str, Any], gold: str) -> None:
    (task,) = load_suite("math/aime25:test", data=write(tmp_path / "a.jsonl", [record]))
    assert task.params["answer"] == gold


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "p"}, "record 1 has no problem"),
        ({"problem": "p"}, "record 1 has no answer"),
        ({"problem": "p", "answer": "x" * 2000}, "record 1 has no answer"),
        ({"problem": "p", "answer": ["x"]}, "line 1: Expected"),
    ],
)
def test_records_that_are_no_problems_are_named(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        load_suite("math/aime25:test", data=write(tmp_path / "a.jsonl", [record]))


def test_what_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALAESTRA_DATA", raising=False)
    with pytest.raises(UnknownNameError, match="'gsm8k'"):
        load_suite("math/gsm9k:test")
    with pytest.raises(UnknownNameError, match="split"):
        load_suite("math:dev")
    for split in ("train", "validation"):
        with pytest.raises(ConfigError, match=f"only problems to test with and no {split}"):
            load_suite(f"math/math500:{split}")
    with pytest.raises(ConfigError, match="data=FILE"):
        load_suite("math/file:train")
    with pytest.raises(DataError, match="has no train.jsonl"):
        load_suite("math/gsm8k:train", data=str(tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        load_suite("math/gsm8k:train", data=str(tmp_path / "absent"))
    wrong: list[dict[str, Any]] = [{"tools": "bash"}, {"judge": "me"}, {"difficulty": 99}, {"choices": -1}]
    for params in (*wrong, {"max_turns": 0, "tools": "python"}):
        with pytest.raises(ConfigError):
            load_suite("math:train", **params)


def test_gsm8k_is_cut_and_every_gold_answer_verifies(real_data: Path) -> None:
    suites = {split: load_suite(f"math/gsm8k:{split}", data=str(real_data / "gsm8k")) for split in SPLITS}
    texts = {split: {task.params["problem"] for task in suite} for split, suite in suites.items()}
    assert len(suites["test"]) == len(texts["test"]) == 1319
    assert len(suites["train"]) + len(suites["validation"]) == len(texts["train"] | texts["validation"]) == 7473
    assert 650 < len(suites["validation"]) < 850
    assert not texts["test"] & (texts["train"] | texts["validation"])
    for task, line in zip(suites["test"], lines(real_data / "gsm8k/test.jsonl"), strict=True):
        gold = line["answer"].rpartition("####")[2].strip()
        answer = last_answer(rf"so it is $\boxed{{{gold}}}$")
        assert answer is not None
        assert equal(answer, task.params["answer"]) is True


@pytest.mark.integration
def test_every_solution_of_math500_verifies_by_the_judge_itself(real_data: Path) -> None:
    pytest.importorskip("math_verify", reason="not installed: pip install 'palaestra[math]'")
    suite = load_suite("math/math500:test", data=str(real_data / "math500"))
    answers = [last_answer(line["solution"]) or "" for line in lines(real_data / "math500/test.jsonl")]
    assert len(suite) == len(answers) == 500

    async def judge_all() -> int:
        questions = [Question(answer, task.params["answer"]) for answer, task in zip(answers, suite, strict=True)]
        return sum(found.right for found in await asyncio.gather(*map(JUDGES.ask, questions)))

    began = time.monotonic()
    assert all(map(readable, answers))
    assert asyncio.run(judge_all()) == 500
    assert all(equal(answer, task.params["answer"]) for answer, task in zip(answers, suite, strict=True))
    assert time.monotonic() - began < 120


@pytest.mark.integration
def test_answers_of_other_problems_are_wrong(real_data: Path) -> None:
    pytest.importorskip("math_verify", reason="not installed: pip install 'palaestra[math]'")
    golds = [task.params["answer"] for task in load_suite("math/math500:test", data=str(real_data / "math500"))[:200]]
    pairs = [(one, other) for one, other in pairwise(golds) if equal(one, other) is None]

    async def judge_all() -> list[tuple[str, str]]:
        found = await asyncio.gather(*(JUDGES.ask(Question(*pair)) for pair in pairs))
        return [pair for pair, judgement in zip(pairs, found, strict=True) if judgement.right]

    assert asyncio.run(judge_all()) == [("5", "x=5")]
