"""`palaestra eval --agent openai:MODEL@URL`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.endpoints import Asked, Endpoint, Handler, chat_body, endpoint, refusal
from support.levers import LEVERS, register_levers

from palaestra.cli.main import main
from palaestra.evaluation.result import EvalResult
from palaestra.trajectories.store import read_trajectories

KEY = "sk-very-secret-0123456789"
Capture = pytest.CaptureFixture[str]


async def pulling(asked: Asked) -> web.StreamResponse:
    """Always the right lever."""
    return web.json_response(chat_body(LEVERS[0]))


async def refusing(asked: Asked) -> web.StreamResponse:
    return refusal(401, f"{asked.headers.get('Authorization')} is wrong")


def evaluate(served: Endpoint, *more: str) -> int:
    register_levers()
    return main(["eval", "levers:test", "--agent", served.agent("org/model"), "--episodes", "4", *more])


def result_of(handler: Handler, capsys: Capture, *more: str) -> tuple[dict[str, Any], list[Asked]]:
    with endpoint(handler) as served:
        assert evaluate(served, "--json", *more) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result, served.asked


def test_success_counts_and_cost(capsys: Capture) -> None:
    result, asked = result_of(pulling, capsys, "--price", "10,20,1", "--temperature", "0")
    assert (result["success"]["value"], result["n"], result["env_steps"]) == (1.0, 4, 8)
    assert re.fullmatch(r"openai:org/model@http://127\.0\.0\.1:\d+/v1", result["agent"])
    usage = result["usage"]
    assert (usage["requests"], usage["prompt_tokens"], usage["completion_tokens"]) == (8, 800, 80)
    assert usage["cost"] == pytest.approx(8 * (60 * 10 + 40 * 1 + 10 * 20) / 1e6)
    assert (result["tokens_generated"], result["temperature"]) == (80, 0.0)
    assert {each.body["temperature"] for each in asked} == {0.0}
    assert {each.body["model"] for each in asked} == {"org/model"}


def test_options_reach_the_endpoint(capsys: Capture) -> None:
    more = ["--max-tokens", "7", "--top-p", "0.5", "--system", "Be brief.", "--window", "1", "--action", "choice"]
    result, asked = result_of(pulling, capsys, *more)
    last = asked[-1].body
    assert (last["max_tokens"], last["top_p"]) == (7, 0.5)
    assert last["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {len(each.body["messages"]) for each in asked} == {2, 3}
    assert "response_format" in last
    assert (result["top_p"], result["invalid_rate"]) == (0.5, 0.0)


def test_the_table_tells_what_it_took(capsys: Capture) -> None:
    with endpoint(pulling) as served:
        assert evaluate(served, "--price", "10,20") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "8 requests, 800 + 80 tokens, cost 0.0096" in shown


def test_a_stopped_evaluation_goes_on_and_costs_nothing_twice(tmp_path: Path, capsys: Capture) -> None:
    out = ("--out", str(tmp_path), "--json", "--price", "1,1")
    with endpoint(pulling) as served:
        assert evaluate(served, *out) == 0
        first = json.loads(capsys.readouterr().out)
        sent = len(served.asked)
        assert evaluate(served, *out) == 2
        assert "earlier evaluation" in capsys.readouterr().err
        assert evaluate(served, *out, "--resume") == 0
        again = json.loads(capsys.readouterr().out)
        assert len(served.asked) == sent
        assert {**again, "seconds": 0} == {**first, "seconds": 0}
        assert main(["eval", "levers:test", "--agent", served.agent("other"), "--episodes", "4", *out, "--resume"]) == 0
        capsys.readouterr()
        assert evaluate(served, *out, "--resume", "--system", "") == 2
        assert "was played with system message 'You act in a text" in capsys.readouterr().err
    (stored,) = [path for path in (tmp_path / "eval").iterdir() if "org-model" in path.name]
    assert EvalResult.load(stored).usage is not None
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0


def test_the_key_is_used_and_never_written(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with endpoint(refusing) as served:
        assert evaluate(served, "--api-key-env", "MY_KEY", "--out", str(tmp_path)) == 1
    told = capsys.readouterr()
    assert "does not accept the API key in MY_KEY: Bearer [key] is wrong" in told.err
    assert {each.headers["Authorization"] for each in served.asked} == {f"Bearer {KEY}"}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    stored = [t.error for path in tmp_path.rglob("*.ptj") for t in read_trajectories(path)]
    assert stored
    assert KEY not in told.err + told.out + "".join(stored)
    assert KEY.encode() not in written


def test_nobody_there_is_told_in_a_line(capsys: Capture) -> None:
    register_levers()
    assert main(["eval", "levers:test", "--agent", "openai:m@http://127.0.0.1:9/v1", "--episodes", "50"]) == 1
    told = capsys.readouterr().err
    assert "no episode of levers:test can be played, the first: 127.0.0.1:9 cannot be reached" in told
    assert len(told.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["openai:"], "is not openai:MODEL@URL"),
        (["openai:m@localhost:8000"], "the URL begins with http:// or https://"),
        (
            ["openai:m", "--api-key-env", "NO_SUCH_VARIABLE"],
            "NO_SUCH_VARIABLE, which should hold the API key, is not set",
        ),
        (["openai:m", "--price", "1"], "two or three prices"),
        (["openai:m", "--price", "a,b"], "two or three prices"),
        (["openai:m", "--device", "cuda"], "an endpoint has its own"),
        (["openai:m", "--tokenizer", "no/such/place"], "unknown tokenizer"),
        (["openai:m", "--tokenizer", "palaestra-tiny", "--action", "tool"], "leave the tokenizer out"),
        (["random", "--max-tokens", "5"], "--max-tokens is for a model behind an endpoint"),
        (["palaestra-tiny", "--action", "tool"], "--action tool is for a model behind an endpoint"),
        (["opnai:m"], "did you mean"),
    ],
)
def test_mistakes_are_told(arguments: list[str], told: str, capsys: Capture) -> None:
    register_levers()
    assert main(["eval", "levers:test", "--episodes", "1", "--agent", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_help_has_examples(capsys: Capture) -> None:
    assert main(["eval", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--agent openai:my-model@http://127.0.0.1:8000/v1" in shown
    assert "--requests-per-minute" in shown
