"""The agent of a verifiers environment, played by whoever calls `step`.

A verifiers environment runs an episode and asks its agents for replies. Here it runs as a task beside ours, and each
question waits at a desk until `step` brings the reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from verifiers.v1 import graph
from verifiers.v1.agent import Segment
from verifiers.v1.dialects.chat import parse_message
from verifiers.v1.runtimes import SubprocessConfig, make_runtime
from verifiers.v1.session import call_hook, hook_boundary
from verifiers.v1.state import state_cls
from verifiers.v1.trace import AgentInfo, ModelCall, Trace, TraceTask
from verifiers.v1.types import AssistantMessage, Request, Response, SystemMessage, UserMessage
from verifiers.v1.utils.decorators import invoke


class Desk:
    """Where a question waits for its reply; one at a time, whoever asks."""

    def __init__(self) -> None:
        self.question: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        """The messages to be answered."""
        self._reply: asyncio.Future[Any] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def ask(self, messages: list[Any]) -> Any:
        """The reply to `messages`."""
        async with self._one_at_a_time:
            self._reply = asyncio.get_running_loop().create_future()
            self.question.set_result(messages)
            return await self._reply

    def reply(self, message: Any) -> None:
        """Let the one who asked go on."""
        assert self._reply is not None
        self.question = asyncio.get_running_loop().create_future()
        self._reply.set_result(message)


class NoRuntime:
    """Stands for the box that a task's hooks may ask for, and says that there is none."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(
            f"it asks for verifiers' runtime (.{name}); pass local_runtime=True to run its programs on this machine"
        )


class Seat:
    """What an environment's `run` sees as its agent."""

    trainable = True

    def __init__(self, name: str, config: Any, desk: Desk | None, done: list[Any], local_runtime: bool) -> None:
        """Take it.

        Args:
            name: of the agent.
            config: its `AgentConfig`.
            desk: where it asks; `None` for an agent that nobody plays here.
            done: the traces of the episode, which it adds to.
            local_runtime: whether programs of tasks may run on this machine.
        """
        self.name, self.config = name, config
        self._desk, self._done, self._local_runtime = desk, done, local_runtime

    async def run(self, task: Any, **ignored: Any) -> Any:
        """One reply, graded; the trace of it."""
        async with self.interaction(task) as exchange:
            await exchange.turn()
        return exchange.trace

    @asynccontextmanager
    async def interaction(self, task: Any, **ignored: Any) -> AsyncIterator[Exchange]:
        """A conversation; graded when the block ends."""
        if self._desk is None:
            raise RuntimeError(f"its agent {self.name!r} is a model of its own, which this adapter does not have")
        runtime = make_runtime(SubprocessConfig()) if self._local_runtime else None
        try:
            if runtime is not None:
                await runtime.start()
            exchange = Exchange(task, self, self._desk, runtime or NoRuntime())
            await invoke(task.setup, {"trace": exchange.trace, "runtime": exchange.runtime})
            yield exchange
            await exchange.close()
            self._done.append(exchange.trace)
        finally:
            if runtime is not None:
                await runtime.stop()


class Exchange:
    """A conversation, as verifiers' `Interaction`: the environment says what the user says."""

    def __init__(self, task: Any, seat: Seat, desk: Desk, runtime: Any) -> None:
        self.task, self.runtime = task, runtime
        self.trace: Any = Trace(
            task=TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
            state=state_cls(type(task))(),
            agent=AgentInfo(config=seat.config, name=seat.name, trainable=seat.trainable),
        )
        self._desk, self._most = desk, seat.config.max_turns
        self._said: list[Any] = []
        self._over = False
        self._stops: dict[Any, list[Any]] = {kind: [] for kind in (Request, Response, Trace)}
        for stop in task.hooks("stop"):
            self._stops[hook_boundary(stop, allow_trace=True)].append(stop)

    async def turn(self, message: Any = None) -> Segment:
        """Say `message` (nothing, where the task's prompt opens), and hear the reply; terminated where it is over."""
        if self._over:
            raise RuntimeError("the exchange is over; read interaction.trace")
        if (message is None) != (not self._said and self.task.data.prompt is not None):
            raise ValueError("a prompt opens the exchange by a bare turn(); every other turn says something")
        news = _opening(self.task.data) if not self._said else []
        news += _typed(message)
        prompt = [*self._said, *news]
        if await self._stopped(prompt):
            self._over = True
            return Segment(messages=[], terminated=True)
        answer = await self._desk.ask(news)
        response = Response(id="", created=0, model="", message=answer, finish_reason="stop")
        node = graph.prepare_turn(self.trace, prompt).commit(response)
        self.trace.calls.append(ModelCall(node=node, finish_reason="stop"))
        self._said = [*prompt, answer]
        for stop in self._stops[Response]:
            if await call_hook(stop, {Response: response, Trace: self.trace}):
                self.trace.stop(stop.__name__)
        return Segment(messages=[answer])

    async def close(self) -> None:
        """Grade it."""
        trace, hooks = self.trace, {"trace": self.trace, "runtime": self.runtime}
        trace.stop("agent_completed")
        await invoke(self.task.finalize, hooks)
        await self.task.score(trace, self.runtime)
        trace.ok = True

    async def _stopped(self, prompt: list[Any]) -> bool:
        """Whether a limit or a stop condition comes before the next reply."""
        if self.trace.stop_condition is not None:
            return True
        if self._most is not None and self.trace.num_turns >= self._most:
            self.trace.stop("max_turns")
            return True
        for stop in self._stops[Trace]:
            if await call_hook(stop, {Trace: self.trace}):
                self.trace.stop(stop.__name__)
                return True
        for stop in self._stops[Request]:
            if await call_hook(stop, {Request: Request(messages=prompt), Trace: self.trace}):
                self.trace.stop(stop.__name__)
                return True
        return False


def _opening(data: Any) -> list[Any]:
    """The system prompt and the prompt of a task."""
    said = [SystemMessage(content=data.system_prompt)] if data.system_prompt is not None else []
    return said + _typed(data.prompt)


def _typed(message: Any) -> list[Any]:
    if message is None:
        return []
    if isinstance(message, str):
        return [UserMessage(content=message)]
    return [parse_message(one) if isinstance(one, dict) else one for one in message]


def reply_of(action: Any) -> AssistantMessage | None:
    """What an agent says, as verifiers' message; `None` where it says nothing that is text."""
    said = action.get("content") if isinstance(action, dict) else action
    if not isinstance(said, str):
        return None
    return AssistantMessage(content=said.encode("utf-8", "replace").decode())
