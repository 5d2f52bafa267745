"""The environment: an episode of any taskset or environment of verifiers."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping
from typing import Any

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.ending import contained, told
from palaestra.envs.history import fresh_seed
from palaestra.envs.params import whole
from palaestra.envs.tasks import Task
from palaestra.envs.verifiers.chosen import EXAMPLE, MOST_ROWS, Chosen, chosen
from palaestra.errors import EnvError
from palaestra.seeds import derive_seed

PATH_VARIABLE = "PALAESTRA_VERIFIERS_PATH"
"""Environment variable with folders to look for tasksets in, beside `path`."""
DRAWN = 1000
"""Rows among which a seed draws where no task is given."""


class VerifiersEnv(Env[str, str]):
    """Plays the rows of a taskset of verifiers, as its environment has them played.

    The agent converses: observations are what its environment says (system prompt first), actions are replies. The
    reward comes at the end: the weighted sum of the taskset's rewards, which are in `info["rewards"]`, with its metrics
    in `info["metrics"]`. A task's `params` hold `taskset`, `index`, and what `Chosen` has beside.
    """

    def __init__(
        self,
        taskset: str = EXAMPLE,
        env: str = "",
        args: Mapping[str, Any] | None = None,
        env_args: Mapping[str, Any] | None = None,
        path: str = "",
        agent: str = "",
        solved: float = 1.0,
        judges: bool = False,
        local_runtime: bool = False,
    ) -> None:
        """Make it.

        Args:
            taskset: of whose training rows a seed draws one where no task is given.
            env, args, env_args, path: see `Chosen`.
            agent: which of the environment's agents is played; needed only where there are several.
            solved: reward from which an episode counts as solved.
            judges: let the taskset call models that grade.
            local_runtime: let hooks of its tasks run programs on this machine, without a sandbox.
        """
        settings = {"args": dict(args or {}), "env_args": dict(env_args or {})}
        self._choice = chosen({"taskset": taskset, "env": env, "path": path, **settings}, Chosen())
        self.agent, self.solved, self.judges, self.local_runtime = agent, solved, judges, local_runtime
        self._desk: Any = None
        self._run: asyncio.Task[Any] | None = None
        self._traces: list[Any] = []

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin an episode; see `Env.reset`.

        Raises:
            DataError: the task's params are of the wrong kind.
            MissingExtraError: verifiers is not installed where this runs.
            EnvError: the taskset cannot be loaded or played, or its code failed.
        """
        from palaestra.envs.verifiers.taskset import loaded

        await self.close()
        params = task.params if task is not None else {}
        choice = chosen(params, self._choice)
        folders = [choice.path, os.environ.get(PATH_VARIABLE, "")]
        choice = chosen({"path": os.pathsep.join(filter(None, folders))}, choice)
        self._loaded = loaded(choice, self.judges)
        index = self._drawn(seed) if task is None else whole(params, "index", "a verifiers task", most=MOST_ROWS)
        row = self._loaded.row(index)
        self._begin(row)
        over, text = await self._wait()
        if over:
            raise EnvError(f"{self._name} ended an episode before anything was asked")
        return Reset(text, self._info({}))

    async def step(self, action: str) -> Step[str]:
        """Reply. What is no text is refused, and marked invalid.

        Raises:
            EnvError: the taskset's code failed, for example a reward, or gave a reward that is no finite number.
        """
        from palaestra.envs.verifiers.seat import reply_of

        if self._run is None or self._desk is None or not self._desk.question.done():
            raise EnvError("no episode is being played; call reset() first")
        reply = reply_of(action)
        if reply is None:
            return Step("A reply is text.", 0.0, False, False, {**self._info({}), "invalid": True})
        self._desk.reply(reply)
        over, text = await self._wait()
        if not over:
            return Step(text, 0.0, False, False, self._info({}))
        rewards = self._rewards()
        total = sum(rewards.values())
        if not math.isfinite(total):
            raise EnvError(f"{self._name} gave the rewards {rewards}")
        self._run = None
        return Step("", total, True, False, self._info(rewards))

    async def close(self) -> None:
        """End the episode."""
        run, self._run, self._desk, self._traces = self._run, None, None, []
        if run is not None:
            run.cancel()
            await asyncio.wait({run})
            if not run.cancelled():
                run.exception()  # nobody asks any more

    def _begin(self, row: Any) -> None:
        from palaestra.envs.verifiers.play import play
        from palaestra.envs.verifiers.seat import Desk

        self._desk = Desk()
        work = play(self._loaded.env, row, self._desk, self._traces, self.agent, self.local_runtime)
        self._run = asyncio.create_task(contained(work))

    async def _wait(self) -> tuple[bool, str]:
        """Whether the episode is over, else what there is to reply to.

        Raises:
            EnvError: the taskset's code failed.
        """
        assert self._run is not None
        await asyncio.wait({self._run, self._desk.question}, return_when=asyncio.FIRST_COMPLETED)
        if not self._run.done():
            return False, shown(self._desk.question.result())
        run, error = self._run, self._run.exception()
        if error is not None:
            self._run = None
            raise EnvError(f"{self._name}: {told(error)[:2000]}") from error
        run.result()
        return True, ""

    def _rewards(self) -> dict[str, float]:
        """By name; the mean over conversations, where the environment had several."""
        found: dict[str, float] = {}
        for trace in self._traces:
            for name, reward in trace.rewards.items():
                if reward is not None:
                    found[name] = found.get(name, 0.0) + reward.value / len(self._traces)
        return found

    def _info(self, rewards: dict[str, float]) -> Info:
        total = sum(rewards.values())
        info: Info = {
            "success": bool(rewards) and total >= self.solved,
            "invalid": False,
            "score": total,
            "task_type": self._loaded.choice.taskset,
        }
        if self._traces and rewards:
            metrics = self._traces[-1].metrics.items()
            info["rewards"] = rewards
            info["metrics"] = {name: value for name, value in metrics if value is not None}
            info["stop_condition"] = self._traces[-1].stop_condition
        return info

    def _drawn(self, seed: int | None) -> int:
        indices = self._loaded.indices(DRAWN)
        if not indices:
            raise EnvError(f"{self._name} has no rows to train on")
        seed = fresh_seed(None) if seed is None else seed
        return indices[derive_seed(seed, "verifiers") % len(indices)]

    @property
    def _name(self) -> str:
        return f"the taskset {self._loaded.choice.taskset!r}"


def shown(messages: list[Any]) -> str:
    """Messages as text: one alone as it is, several with the role of each that is not the user's."""
    parts = []
    for message in messages:
        content = message.content
        if not isinstance(content, str):
            if any(part.type != "text" for part in content or ()):
                raise EnvError("a message holds an image; agents read text")
            content = "\n".join(part.text for part in content or ())
        parts.append(content if message.role in ("user", "system") else f"[{message.role}]\n{content}")
    return "\n\n".join(parts)
