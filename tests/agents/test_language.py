from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from support.envs import COMMANDS, InjectedEnv, tasks, timeless
from support.tokens import RecordingTokenizer, chatml, tiny

from palaestra.agents.actions import ChoiceAction
from palaestra.agents.chat import ChatFormat
from palaestra.agents.context import FullContext, WindowContext
from palaestra.agents.engines.base import Completion, Request
from palaestra.agents.engines.scripted import ScriptedEngine
from palaestra.agents.language import LanguageAgent, TokenLimits
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.trajectories.record import Trajectory


class NoisyEngine(ScriptedEngine):
    """Spells commands letter by letter, as no tokenizer would encode them; ends them, or is cut off."""

    def __init__(self, chat: ChatFormat, **options: int) -> None:
        super().__init__(self.write, **options)
        self.chat, self.released = chat, list[str]()

    def write(self, request: Request) -> Sequence[int]:
        draw = random.Random(request.sampling.seed)
        text = draw.choice(COMMANDS)
        ids = [i for letter in text for i in self.chat.completion(letter)[:-1]]
        return [*ids, self.chat.end_id] if draw.random() < 0.6 else ids

    async def release(self, session: str) -> None:
        self.released.append(session)


def agent_of(tokenizer: object, **settings: object) -> tuple[LanguageAgent, NoisyEngine]:
    chat = ChatFormat.from_tokenizer(tokenizer)
    engine = NoisyEngine(chat)
    return LanguageAgent(engine, chat, **settings), engine


def play(agent: LanguageAgent, n: int = 1, **limits: object) -> list[Trajectory]:
    episodes = [Episode(task=task, id=task.name) for task in tasks(n)]
    return asyncio.run(rollout(episodes, agent, lambda _: InjectedEnv(), RolloutLimits(**limits)))


def prompt_ids(trajectory: Trajectory, turn: int) -> list[int]:
    return [i for node in trajectory.prompt_of(turn) for i in trajectory.nodes[node].ids]


@pytest.mark.parametrize("make", [tiny, chatml])
@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("window", [None, 2])
def test_no_token_is_ever_encoded_again(make: object, system: str | None, window: int | None) -> None:
    tokenizer = RecordingTokenizer(make())
    agent, engine = agent_of(tokenizer, system=system, context=WindowContext(window) if window else FullContext())
    tokenizer.encoded.clear()
    (trajectory,) = play(agent)
    assert trajectory.status == "ok"

    observations = [step.observation for step in trajectory.steps]
    pieces = [agent.chat.pieces.system_open, agent.chat.pieces.system_close] if system else []
    expected = [*observations, *([system] if system else []), *[p for p in pieces if p]]
    written = [text for text in tokenizer.encoded if len(text) > 1]  # single letters are the test engine's
    assert sorted(written) == sorted(expected), "only what the environment wrote, each once"

    sampled = [trajectory.nodes[step.completion] for step in trajectory.steps]
    for turn, (step, node, request) in enumerate(zip(trajectory.steps, sampled, engine.requests, strict=True)):
        assert prompt_ids(trajectory, turn) == list(request.prompt), "the engine saw exactly the recorded nodes"
        assert node.ids == list(engine.write(request)), "the record has exactly what was sampled"
        assert tokenizer.inner.encode(step.action) != [i for i in node.ids if i != agent.chat.end_id], "no round trip"


def test_full_context_prompts_extend_each_other() -> None:
    agent, engine = agent_of(chatml())
    (trajectory,) = play(agent)
    assert len(trajectory.steps) == 5
    assert all(step.prompt is None for step in trajectory.steps)
    for turn in range(1, 5):
        before = [*engine.requests[turn - 1].prompt, *trajectory.nodes[trajectory.steps[turn - 1].completion].ids]
        assert list(engine.requests[turn].prompt[: len(before)]) == before
    assert len({request.session for request in engine.requests}) == 1


@pytest.mark.parametrize("make", [tiny, chatml])
def test_prompts_read_as_the_template_would_write_them(make: object) -> None:
    tokenizer = make()
    agent, engine = agent_of(tokenizer, system="Be brief.")
    (trajectory,) = play(agent)
    messages = [{"role": "system", "content": "Be brief."}]
    for step, request in zip(trajectory.steps, engine.requests, strict=True):
        messages.append({"role": "user", "content": step.observation})
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(request.prompt, skip_special_tokens=False) == text
        messages.append({"role": "assistant", "content": step.action})


def test_a_cut_off_completion_is_closed_by_tokens_that_are_not_sampled() -> None:
    chat = ChatFormat.from_tokenizer(tiny())
    engine = ScriptedEngine([chat.completion("look")[:-1]], cycle=True)
    (trajectory,) = play(LanguageAgent(engine, chat), max_turns=2)
    first = trajectory.steps[0].completion
    assert chat.end_id not in trajectory.nodes[first].ids
    assert trajectory.nodes[first + 1].ids == [chat.end_id]
    assert not trajectory.nodes[first + 1].sampled


def test_window_context_names_its_nodes() -> None:
    agent, engine = agent_of(tiny(), context=WindowContext(2))
    (trajectory,) = play(agent)
    assert [step.prompt is None for step in trajectory.steps] == [True, True, False, False, False]
    first, nodes = trajectory.nodes[0], trajectory.nodes
    assert first.ids == agent.chat.user(trajectory.steps[0].observation)
    for turn in (2, 3, 4):
        kept = [nodes[i] for i in trajectory.prompt_of(turn)]
        assert kept[0] is first, "the first observation states the task"
        assert [node.ids for node in kept if node.sampled] == [nodes[trajectory.steps[turn - 1].completion].ids]
        assert kept[-2].ids == agent.chat.user(trajectory.steps[turn].observation)
    assert len(engine.requests[4].prompt) < len(prompt_ids(trajectory, 1)) * 2


def test_choices_constrain_the_engine_and_are_recorded() -> None:
    chat = ChatFormat.from_tokenizer(tiny())
    engine = ScriptedEngine(lambda request: chat.completion("go to desk 10"))
    agent = LanguageAgent(engine, chat, actions=ChoiceAction(), limits=TokenLimits(max_tokens=1))
    (trajectory,) = play(agent)
    assert {step.action for step in trajectory.steps} == {"go to desk 10"}, "max_tokens does not cut a choice"
    assert not any(step.invalid for step in trajectory.steps)
    node = trajectory.nodes[trajectory.steps[0].completion]
    assert node.allowed
    assert all(token in allowed for token, allowed in zip(node.ids, node.allowed, strict=True))


def test_an_empty_completion_is_sent_and_marked_invalid() -> None:
    chat = ChatFormat.from_tokenizer(tiny())
    (trajectory,) = play(LanguageAgent(ScriptedEngine([[chat.end_id]], cycle=True), chat))
    assert trajectory.status == "ok"
    assert all(step.invalid and step.action == "" for step in trajectory.steps)


@pytest.mark.parametrize("model", [False, True])
def test_a_full_context_ends_the_episode_as_overflow(model: bool) -> None:
    chat = ChatFormat.from_tokenizer(tiny())
    engine = NoisyEngine(chat, context_length=120 if model else 1 << 20)
    agent = LanguageAgent(engine, chat, limits=TokenLimits(max_tokens=32, max_context=None if model else 120))
    (trajectory,) = play(agent)
    assert trajectory.status == "overflow"
    assert trajectory.attempt == 0, "starting again would not help"
    assert 0 < len(trajectory.steps) < 5
    assert all(len(request.prompt) + 32 <= 120 for request in engine.requests)


def test_draws_depend_on_episode_seed_and_turn_only() -> None:
    agent, engine = agent_of(tiny())
    together = timeless(play(agent, 6))
    seeds = [request.sampling.seed for request in engine.requests]
    assert len(set(seeds)) == len(seeds)
    assert timeless(play(agent_of(tiny())[0], 6, concurrency=1)) == together
    alone = play(agent_of(tiny())[0], 1)
    assert timeless(alone) == together[:1]


def test_sampling_settings_reach_the_engine() -> None:
    agent, engine = agent_of(tiny(), temperature=0.7, limits=TokenLimits(max_tokens=9))
    play(agent.with_(name="other"))
    sampling = engine.requests[0].sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.stop_ids) == (0.7, 9, agent.chat.stop_ids)


def test_every_conversation_is_released_once() -> None:
    agent, engine = agent_of(tiny())
    play(agent, 5)
    assert sorted(engine.released) == sorted({request.session for request in engine.requests})
    assert len(engine.released) == 5


def test_what_the_engine_reports_is_recorded() -> None:
    chat = ChatFormat.from_tokenizer(tiny())

    class Reporting(ScriptedEngine):
        async def generate(self, request: Request) -> Completion:
            ids = chat.completion("look")
            k = float(len(ids))
            return Completion(
                ids=ids, logprobs=[-k] * len(ids), entropies=[k] * len(ids), weight_version=3, versions=[3] * len(ids)
            )

    (trajectory,) = play(LanguageAgent(Reporting([]), chat))
    node = trajectory.nodes[trajectory.steps[0].completion]
    k = len(node.ids)
    assert (node.logprobs, node.entropies, node.weight_version) == ([-float(k)] * k, [float(k)] * k, 3)
    assert node.versions == [3] * k
    assert trajectory.sampled_tokens == 5 * k
