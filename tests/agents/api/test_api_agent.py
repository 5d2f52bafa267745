"""The API agent: what it sends, how replies become actions, what its records say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from aiohttp import web
from support.endpoints import Asked, Handler, chat_body, endpoint, refusal, saying
from support.envs import COMMANDS, InjectedEnv, tasks

from palaestra.agents.api.agent import ApiAgent
from palaestra.agents.api.conversation import Conversation
from palaestra.agents.api.formats import FORMATS, ChoiceReply, MessageReply, TextReply, ToolReply
from palaestra.agents.api.opening import load_api_agent
from palaestra.agents.api.reply import Reply, ToolCall
from palaestra.agents.api.settings import ApiSettings
from palaestra.agents.context import FullContext, WindowContext
from palaestra.agents.engines.openai.address import parse_address
from palaestra.agents.engines.openai.client import Client
from palaestra.agents.engines.openai.key import HIDDEN
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.envs.calls import find_call
from palaestra.envs.core import Env
from palaestra.errors import ConfigError, DataError
from palaestra.training.rows import build_rows
from palaestra.trajectories.record import Trajectory

KEY = "sk-very-secret-0123456789"
SEARCH = {
    "type": "function",
    "function": {"name": "search", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}},
}


class ToolEnv(InjectedEnv):
    def tools(self) -> list[Mapping[str, Any]]:
        return [SEARCH]


def play(
    handler: Handler, n: int = 1, env: type[Env[Any, Any]] = InjectedEnv, **settings: Any
) -> tuple[list[Trajectory], list[Asked]]:
    """Episodes with an agent of these `ApiSettings` at such an endpoint."""

    async def go(reference: str) -> list[Trajectory]:
        agent = load_api_agent(reference, ApiSettings(**settings))
        episodes = [Episode(task=task, id=task.name) for task in tasks(n)]
        try:
            return await rollout(episodes, agent, lambda _: env(), RolloutLimits(retries=0))
        finally:
            await agent.engine.close()  # type: ignore[attr-defined]

    with endpoint(handler) as served:
        return asyncio.run(go(served.agent())), served.asked


def roles(asked: Asked) -> list[str]:
    return [message["role"] for message in asked.body["messages"]]


def call(name: str, arguments: str, number: str = "c1") -> dict[str, Any]:
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_whole_conversation_is_sent_each_turn() -> None:
    (trajectory,), asked = play(saying("look\nbecause", " take key 2 "))
    assert (trajectory.status, trajectory.success) == ("ok", True)
    assert [step.action for step in trajectory.steps] == ["look", "take key 2", "look", "take key 2", "look"]
    assert [roles(each) for each in asked] == [["system", *["user", "assistant"] * n, "user"] for n in range(5)]
    last = asked[-1].body["messages"]
    assert last[0]["content"] == TextReply().system
    assert [m["content"] for m in last if m["role"] == "user"] == [step.observation for step in trajectory.steps]
    assert last[2]["content"] == "look\nbecause", "as the model said it"
    assert len({each.body["seed"] for each in asked}) == 5
    assert trajectory.meta["usage"] == {
        **{"requests": 5, "retries": 0, "prompt_tokens": 500, "cached_tokens": 200, "completion_tokens": 50},
        **{"uncounted": 0, "cut_off": 0, "cost": None},
    }


def test_a_window_sends_the_first_and_the_last_turns() -> None:
    (trajectory,), asked = play(saying("look"), context="window", window_turns=2, system="")
    observations = [step.observation for step in trajectory.steps]
    contents = [m["content"] for m in asked[-1].body["messages"]]
    assert contents == [observations[0], observations[3], "look", observations[4]]


@pytest.mark.parametrize(
    ("format", "text", "action", "error"),
    [
        ("text", " go to desk 1 \nthen", "go to desk 1", ""),
        ("text", "<think>look?\nlook!</think>\n\nlook", "look", ""),
        ("text", " \n ", "", "the reply is empty"),
        ("message", " a\nb ", "a\nb", ""),
        ("message", "", "", "the reply is empty"),
        ("choice", '{"command": "look"}', "look", ""),
        ("choice", '{"command": "Go  to desk 1"}', "go to desk 1", ""),
        ("choice", "<think>hm</think>look", "look", ""),
        ("choice", '- "take key 2"\nbecause', "take key 2", ""),
        ("choice", "jump", "jump", "the reply is none of the admissible commands"),
        ("choice", '{"command": "jump"}', "jump", "the reply is none of the admissible commands"),
        ("tool", "I answer 5.", "I answer 5.", ""),
    ],
)
def test_texts_as_actions(format: str, text: str, action: str, error: str) -> None:
    actions = FORMATS[format]()
    offer = actions.offer({"admissible_commands": COMMANDS}, [SEARCH])
    parsed = actions.read(Reply(text, (), False, None), offer)
    assert (parsed.text, parsed.error) == (action, error)


@pytest.mark.parametrize(
    ("said", "name", "arguments"),
    [
        ("", "search", '{"query": "who wrote it"}'),
        ("Let me look.", "search", '{"query": "a", "k": 5}'),
        ("", "submit", "{}"),
        ("", "search", '{"query": "</search><search>other", "k": 1}'),
        ("I could <search>something else</search>", "search", '{"query": "this"}'),
        ("", "search", "no json"),
    ],
)
def test_a_call_becomes_a_tag_that_reads_the_same(said: str, name: str, arguments: str) -> None:
    names = ["search", "submit"]
    offer = ToolReply().offer({}, [{"function": {"name": n}} for n in names])
    parsed = ToolReply().read(Reply(said, (ToolCall("c", name, arguments),), False, None), offer)
    read, meant = find_call(parsed.text, names), find_call({"tool_calls": [call(name, arguments)]}, names)
    assert read is not None
    assert meant is not None
    assert read.name == meant.name
    assert read.argument == meant.argument or json.loads(read.argument) == json.loads(meant.argument)
    assert parsed.error == ""


def test_a_cut_off_reply_says_so() -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        body = chat_body(None)
        body["choices"][0]["finish_reason"] = "length"
        return web.json_response(body)

    (trajectory,), _ = play(handler)
    assert all(step.invalid for step in trajectory.steps)
    assert trajectory.meta["usage"]["cut_off"] == 5


def test_tools_are_offered_and_answered() -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        calls = [
            [call("search", '{"query": "a"}', "first")],
            [call("search", '{"query": "b"}', "x" * 500), call("search", '{"query": "c"}', "")],
            [call("delete", "{}")],
            [call("search", "not json")],
            None,
        ][asked.number]
        return web.json_response(chat_body("done" if calls is None else None, tool_calls=calls))

    (trajectory,), asked = play(handler, env=ToolEnv, action="tool")
    assert trajectory.status == "ok", trajectory.error
    actions = [step.action for step in trajectory.steps]
    assert actions == [
        *("<search>a</search>", "<search>b</search>", "<delete>{}</delete>", "<search>not json</search>", "done")
    ]
    assert asked[0].body["tools"] == [SEARCH]
    assert asked[0].body["tool_choice"] == "auto"
    assert roles(asked[1])[2:] == ["assistant", "tool"]
    assert asked[1].body["messages"][3]["tool_call_id"] == "first"
    assert asked[1].body["messages"][3]["content"] == trajectory.steps[1].observation
    answered = asked[2].body["messages"][-3:]
    ids = [each["id"] for each in answered[0]["tool_calls"]]
    assert [m["tool_call_id"] for m in answered[1:]] == ids
    assert len(set(ids)) == 2
    assert all(0 < len(each) <= 64 for each in ids)
    assert answered[2]["content"] == "Not carried out: one call a turn."
    assert roles(asked[3])[-2:] == ["assistant", "user"], "what was no call is not repeated as one"
    assert "tool_calls" not in asked[4].body["messages"][-2]


def test_a_window_over_tool_calls_leaves_no_result_without_its_call() -> None:
    talk = Conversation.begin("s")
    for turn in range(5):
        talk.show(f"o{turn}")
        talk.answer(Reply("", (ToolCall(f"c{turn}", "f", "{}"),), False, None), calls=True)
    talk.show("o5")
    sent = talk.prompt(WindowContext(2, keep_first=False))
    assert [m["role"] for m in sent] == ["system", "user", "assistant", "tool"]
    assert [m["role"] for m in talk.prompt(FullContext())][-4:] == ["assistant", "tool", "assistant", "tool"]


def test_an_environment_without_tools_or_commands_is_told() -> None:
    (trajectory,), asked = play(saying("x"), action="tool")
    assert trajectory.error == "the environment offers no tools; use the action format text or message"
    assert not asked


def test_choices_are_listed_and_made_a_schema() -> None:
    (trajectory,), asked = play(saying('{"command": "take key 2"}'), action="choice")
    assert {step.action for step in trajectory.steps} == {"take key 2"}
    wanted = asked[0].body["response_format"]["json_schema"]["schema"]
    assert wanted["properties"]["command"]["enum"] == COMMANDS
    assert asked[0].body["messages"][-1]["content"].endswith("- go to desk 10\n- take key 2")
    assert "held its tokens to a schema" in trajectory.meta["untrainable"]


def test_a_full_context_ends_the_episode_as_overflow() -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        if len(asked.body["messages"]) > 4:
            return refusal(400, "This model's maximum context length is 10 tokens")
        return web.json_response(chat_body())

    (trajectory,), _ = play(handler)
    assert (trajectory.status, len(trajectory.steps), trajectory.error) == ("overflow", 2, "")


def test_an_endpoint_that_fails_is_the_episodes_error() -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        return refusal(404, "no such model") if asked.number > 1 else web.json_response(chat_body())

    (trajectory,), _ = play(handler)
    assert trajectory.status == "error"
    assert trajectory.error.endswith("does not have 'm': no such model")
    assert trajectory.meta["usage"]["requests"] == 2


def test_what_has_no_token_ids_is_not_trained_on() -> None:
    trajectories, _ = play(saying("look"))
    with pytest.raises(DataError, match="cannot be trained on: 127.0.0.1:[0-9]+ tells no token ids"):
        build_rows(trajectories)
    assert trajectories[0].nodes == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"temperature": 0.7}, "log-probs are of temperature 1"),
        ({"temperature": 0.7, "logprobs": "processed"}, ""),
        ({"top_p": 0.9, "logprobs": "processed"}, "of a distribution that was cut"),
        ({"top_p": 0.9}, ""),
        ({}, ""),
    ],
)
def test_log_probs_of_another_distribution_are_not_trained_on(settings: dict[str, Any], reason: str) -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        body = chat_body()
        told = {"content": [{"token": "look", "logprob": -0.25}]}
        body["choices"][0] |= {"token_ids": [7], "logprobs": told}
        return web.json_response({**body, "prompt_token_ids": list(range(1, 3 + asked.number))})

    trajectories, _ = play(handler, **settings)
    if reason:
        with pytest.raises(DataError, match=reason):
            build_rows(trajectories)
    else:
        assert int(build_rows(trajectories).batch.mask.sum()) == 5


def test_prompts_that_extend_each_other_are_one_row_and_others_are_not() -> None:
    prompts = [[1, 2], [1, 2, 7, 3], [1, 2, 7, 3, 7, 4], [1, 2, 7, 9, 9], [5]]

    async def handler(asked: Asked) -> web.StreamResponse:
        body = chat_body()
        body["choices"][0] |= {"token_ids": [7], "logprobs": {"content": [{"token": "l", "logprob": -0.25}]}}
        return web.json_response({**body, "prompt_token_ids": prompts[asked.number]})

    (trajectory,), _ = play(handler)
    for turn, prompt in enumerate(prompts):
        assert [i for n in trajectory.prompt_of(turn) for i in trajectory.nodes[n].ids] == prompt
    assert [step.prompt is None for step in trajectory.steps] == [True, True, True, False, False]
    batch = build_rows([trajectory]).batch
    rows = [ids[:length].tolist() for ids, length in zip(batch.ids, batch.length, strict=True)]
    assert rows == [[1, 2, 7, 3, 7, 4, 7], [1, 2, 7, 9, 9, 7], [5, 7]]
    assert batch.mask.sum(1).tolist() == [3, 1, 1], "each answer once"


def test_a_conversation_can_be_forked() -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        body = chat_body()
        told = {"content": [{"token": "look", "logprob": -2.0}]}
        body["choices"][0] |= {"token_ids": [7], "logprobs": told}
        prompt = [1, *(v for n in range(len(asked.body["messages"]) // 2) for v in (3, 7))]
        return web.json_response({**body, "prompt_token_ids": prompt})

    async def go(url: str) -> None:
        agent = ApiAgent(Client(parse_address(f"openai:m@{url}")))
        one, env = agent.session(seed=1), InjectedEnv()
        for observation in ("a", "b", "c"):
            await one.act(observation, env.info())
        other = agent.fork(one, seed=2)
        await one.act("d", env.info())
        await other.act("C", env.info())
        assert [m["content"] for m in other._talk.messages[1::2]] == ["a", "b", "C"]
        assert [m["content"] for m in one._talk.messages[1::2]] == ["a", "b", "c", "d"]
        assert len(other.nodes) == 6
        assert all(a is b for a, b in zip(one.nodes[:4], other.nodes[:4], strict=True))
        await agent.engine.close()

    with endpoint(handler) as served:
        asyncio.run(go(served.url))


def test_a_key_that_the_model_repeats_is_in_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def handler(asked: Asked) -> web.StreamResponse:
        said = asked.headers["Authorization"]
        calls = [call("search", json.dumps({"query": said}), said)] if asked.number % 2 else None
        return web.json_response(chat_body(said, tool_calls=calls))

    trajectories, _ = play(handler, n=2, env=ToolEnv, action="tool")
    stored = msgspec.json.encode(trajectories).decode()
    assert KEY not in stored
    assert HIDDEN in stored
    agent = load_api_agent("openai:m@http://127.0.0.1:1/v1")
    assert KEY not in repr(agent) + str(agent.identity) + str(vars(agent.engine)) + str(vars(agent.engine._connection))  # type: ignore[attr-defined]


def test_results_are_the_same_whoever_answers_first() -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        await asyncio.sleep((asked.body["seed"] % 7) / 500)
        return web.json_response(chat_body(COMMANDS[asked.body["seed"] % 4]))

    first, second = (play(handler, n=6)[0] for _ in range(2))
    assert [[s.action for s in t.steps] for t in first] == [[s.action for s in t.steps] for t in second]
    assert len({tuple(s.action for s in t.steps) for t in first}) > 1


@pytest.mark.parametrize("action", ["choice", "tool"])
def test_token_ids_go_with_free_text_only(action: Any) -> None:
    with pytest.raises(ConfigError, match="leave the tokenizer out, or use text"):
        ApiSettings(tokenizer="palaestra-tiny", action=action)


def test_formats_have_names_and_instructions() -> None:
    assert [FORMATS[name]().name for name in FORMATS] == ["text", "choice", "message", "tool"]
    assert MessageReply().system == ""
    assert "JSON" in ChoiceReply().system
