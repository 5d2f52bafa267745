"""The environment: an episode on any OpenEnv server, over its WebSocket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.openenv.actions import OF_TOOLS, ActionForm, action_of, described, form_of, tools_of
from palaestra.envs.openenv.messages import Answer, Outcome, outcome_of
from palaestra.envs.tasks import Task
from palaestra.errors import ConfigError, DataError, EnvError, WorkerError

DEMONSTRATION = "alfworld/Household-v0"
"""What is played where no server is named."""
UNAVAILABLE = ("CAPACITY_REACHED", "FACTORY_ERROR", "SESSION_ERROR")
"""Codes of errors by which a server has no session for us."""


class RemoteEnv(Env[str, str]):
    """An environment of an OpenEnv server; one instance is one session there.

    Actions are text: a JSON object with the fields of the server's action, or plain text where one field takes text.
    On servers whose actions are tool calls, they are tool calls, as tags or in OpenAI's shape. Observations are the
    server's only text field, or all of the observation as JSON; `info["observation"]` is it as it came.

    `done` terminates, except where the observation itself says `truncated`. Success is what the observation says of
    it, or else whether rewards add up to `solved`. A task's `params` hold `url` and `reset`, further arguments of the
    server's reset.
    """

    def __init__(
        self,
        url: str = "",
        action_field: str = "",
        text_field: str = "",
        solved: float = 1.0,
        seconds: float = 60.0,
        largest_message: int = 16 * 2**20,
        reset: Mapping[str, Any] | None = None,
    ) -> None:
        """Make it; nothing is connected yet.

        Args:
            url: of the server. Without one, a server of its own in this process, with household tasks: to try it.
            action_field: field of the action that plain text goes into; empty for the only one that takes text.
            text_field: field of the observation that is shown; empty for its only text, or all of it as JSON.
            solved: sum of rewards from which an episode counts as solved.
            seconds: how long an answer of the server may take.
            largest_message: bytes of an answer.
            reset: arguments of every reset, beside the seed.

        Raises:
            ConfigError: a limit is not above zero.
        """
        if not seconds > 0 or not largest_message > 0:
            raise ConfigError("seconds and largest_message of openenv/Remote-v0 have to be above zero")
        self.url, self.action_field, self.text_field = url, action_field, text_field
        self.solved, self.seconds, self.largest_message = solved, seconds, largest_message
        self.reset_arguments = dict(reset or {})
        self._connection: Any = None
        self._demonstration: Any = None
        self._form: ActionForm | None = None
        self._score = 0.0
        self._over = False

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin an episode; see `Env.reset`. `options` are further arguments of the server's reset.

        Raises:
            DataError: the task's params are not `url` and `reset`.
            WorkerError: the server cannot be reached, or has no session left.
            DeadlineError: it does not answer in time.
            EnvError: it is no OpenEnv server, or its environment failed.
        """
        url, arguments = self._wanted(task)
        await self._connected(url)
        arguments = {**arguments, **(options or {}), **({} if seed is None else {"seed": seed})}
        answer = await self._connection.ask("reset", arguments)
        outcome = self._outcome(answer)
        if outcome.done:
            raise EnvError(f"{self._connection.url}: the episode is over as soon as it begins")
        self._score, self._over = 0.0, False
        return Reset(self._text(outcome), self._info(outcome))

    async def step(self, action: str) -> Step[str]:
        """Take one action. One that the server's schema has no form for is answered here, and marked invalid.

        Raises:
            WorkerError: the connection broke.
            DeadlineError: no answer came in time.
            EnvError: the server answered with nonsense, or its environment failed.
        """
        if self._form is None or self._connection is None or self._over:
            raise EnvError("no episode is being played; call reset() first")
        wanted = action_of(action, self._form)
        if wanted is None:
            return self._refused(f"Not an action: {self._form.wanted}.")
        answer = await self._connection.ask("step", wanted)
        if answer.type == "error" and answer.data.get("code") == "VALIDATION_ERROR":
            return self._refused(f"Not an action: {_problems(answer)}.")
        outcome = self._outcome(answer)
        reward = float(outcome.reward or 0.0)
        self._score += reward
        self._over = outcome.done
        truncated = outcome.done and outcome.observation.get("truncated") is True
        info = self._info(outcome)
        if "tool_name" in wanted:
            info["tool"] = {"name": wanted["tool_name"], "ok": not outcome.observation.get("error")}
        return Step(self._text(outcome), reward, outcome.done and not truncated, truncated, info)

    def tools(self) -> list[dict[str, Any]]:
        """The server's tools, where its actions are tool calls."""
        return [described(tool) for tool in self._form.tools] if self._form is not None else []

    async def close(self) -> None:
        """End the session."""
        connection, self._connection, self._form = self._connection, None, None
        if connection is not None:
            await connection.close()
        demonstration, self._demonstration = self._demonstration, None
        if demonstration is not None:
            await demonstration.__aexit__(None, None, None)

    def _wanted(self, task: Task | None) -> tuple[str, dict[str, Any]]:
        """Where to play, and the arguments of the reset."""
        params = task.params if task is not None else {}
        url, own = params.get("url", self.url), params.get("reset", {})
        if not isinstance(url, str) or not isinstance(own, Mapping):
            raise DataError("params of an OpenEnv task are url, a text, and reset, a mapping of arguments")
        return url, {**self.reset_arguments, **own}

    async def _connected(self, url: str) -> None:
        """Have a session with the server at `url`, and know what its actions look like."""
        from palaestra.envs.openenv.connection import Connection

        connection = Connection(url or await self._own_url(), self.seconds, self.largest_message)
        if self._connection is not None and self._connection.alive and self._connection.url == connection.url:
            return
        if self._connection is not None:
            await self._connection.close()
        self._connection, self._form = connection, None
        await connection.open()
        try:
            form = form_of(await connection.schema(), self.action_field)
            if form.title in OF_TOOLS:
                listed = self._outcome(await connection.ask("step", {"type": "list_tools"}))
                form = replace(form, tools=tools_of(listed.observation))
        except DataError as error:
            await connection.close()
            raise EnvError(f"{connection.url}: {error}") from None
        self._form = form

    async def _own_url(self) -> str:
        if self._demonstration is None:
            from palaestra.envs.isolation.server import ServerSettings
            from palaestra.envs.openenv.server import OpenEnvServer

            self._demonstration = await OpenEnvServer([DEMONSTRATION], ServerSettings(port=0)).__aenter__()
        url: str = self._demonstration.url
        return url

    def _outcome(self, answer: Answer) -> Outcome:
        if answer.type == "error":
            code, message = str(answer.data.get("code"))[:40], _problems(answer)
            if code in UNAVAILABLE:
                raise WorkerError(f"{self._connection.url} has no session for us: {message} ({code})")
            raise EnvError(f"{self._connection.url}: {message} ({code})")
        try:
            return outcome_of(answer)
        except DataError as error:
            raise EnvError(f"{self._connection.url}: {error}") from None

    def _refused(self, why: str) -> Step[str]:
        return Step(why, 0.0, False, False, {"invalid": True, "success": False, "score": self._score})

    def _text(self, outcome: Outcome) -> str:
        seen = outcome.observation
        if self.text_field:
            if not isinstance(text := seen.get(self.text_field), str):
                raise EnvError(f"the server's observation has no text {self.text_field!r}; it has {', '.join(seen)}")
            return text
        texts = [value for value in seen.values() if isinstance(value, str)]
        if len(texts) == 1 and "tool_name" not in seen:
            return texts[0]
        return msgspec.json.format(msgspec.json.encode(seen), indent=1).decode()

    def _info(self, outcome: Outcome) -> Info:
        seen = outcome.observation
        said = seen.get("success")
        info: Info = {
            "observation": seen,
            "success": said if isinstance(said, bool) else outcome.done and self._score >= self.solved,
            "invalid": seen.get("invalid") is True,
            "score": self._score,
        }
        commands = seen.get("admissible_commands")
        if isinstance(commands, list) and all(isinstance(command, str) for command in commands):
            info["admissible_commands"] = commands
        further = seen.get("info")
        if isinstance(further, dict) and isinstance(kind := further.get("task_type"), str):
            info["task_type"] = kind
        return info


def _problems(answer: Answer) -> str:
    """What an error message says, in a line."""
    said, errors = str(answer.data.get("message"))[:500], answer.data.get("errors")
    if isinstance(errors, list):
        details = [str(one["msg"])[:200] for one in errors[:3] if isinstance(one, dict) and "msg" in one]
        said = ": ".join([said, "; ".join(details)]) if details else said
    return " ".join(said.split()) or "no reason given"
