"""The rollout driver: plays many episodes at once and returns one trajectory each, whatever happens.

Every await has a deadline. An episode that fails or hangs is started again in a fresh environment, with the same seeds;
when its attempts are used up its record says `error` or `timeout` and holds what was played. No episode can end
another, or the program, and results do not depend on who finished first. Deadlines end awaits: an environment that
blocks the whole thread needs a process of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from palaestra.agents.agent import Agent, Decision, Session
from palaestra.envs.core import Env, Info, Step, SupportsVerify, Verdict
from palaestra.envs.ending import is_meant, told
from palaestra.envs.tasks import Task
from palaestra.errors import DeadlineError, EnvError, PalaestraError
from palaestra.seeds import derive_seed
from palaestra.trajectories.chain import next_link, start_link
from palaestra.trajectories.record import Status, StepRecord, Trajectory

T = TypeVar("T")

ABANDON_SECONDS = 5.0
"""How long code may go on after its cancellation before its episode ends without it."""

EnvMaker = Callable[[str], Env[Any, Any]]
"""Makes an environment from its id: `palaestra.envs.registry.make`, for example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One episode to play."""

    task: Task
    """What to solve; the environment is reset with the task and the task's seed."""
    id: str
    """Unique in its run. What the agent draws depends on `seed` and `id`."""
    group: str = ""
    """Name of the group: episodes that begin in the same state and are compared with each other."""
    seed: int = 0
    """Seed of what the agent draws; the same for a whole run, group or episode, as `id` tells them apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutLimits:
    """How long and how often."""

    max_turns: int = 50
    """Actions of one episode; after the last its record says `truncated`."""
    concurrency: int = 256
    """Episodes played at the same time."""
    retries: int = 1
    """How often a failed episode is started again."""
    start_seconds: float = math.inf
    """Wait for a free place and start the environment; what is placed elsewhere has deadlines of its own."""
    reset_seconds: float = 120.0
    act_seconds: float = 600.0
    step_seconds: float = 120.0
    verify_seconds: float = 600.0
    close_seconds: float = 20.0


async def rollout(
    episodes: Sequence[Episode],
    agent: Agent,
    make_env: EnvMaker,
    limits: RolloutLimits | None = None,
    *,
    on_done: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Play all episodes.

    Args:
        episodes: what to play.
        agent: who plays; one session an attempt.
        make_env: makes a fresh environment for each attempt.
        limits: `RolloutLimits()` if not given.
        on_done: called with each trajectory as soon as it is final, in the order of completion.

    Returns:
        One trajectory per episode, in the order of `episodes`.

    Raises:
        CancelledError, KeyboardInterrupt: after all environments and sessions are closed.
        Exception: only what `on_done` raised, after the same.
    """
    limits = limits or RolloutLimits()
    results: list[Trajectory | None] = [None] * len(episodes)
    queue = iter(range(len(episodes)))

    async def work() -> None:
        for index in queue:
            results[index] = trajectory = await play(episodes[index], agent, make_env, limits)
            if on_done:
                on_done(trajectory)
            await asyncio.sleep(0)  # environments and agents that never wait would keep the loop from everybody else

    workers = [asyncio.create_task(work()) for _ in range(min(max(limits.concurrency, 1), len(episodes)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [trajectory for trajectory in results if trajectory is not None]


async def play(episode: Episode, agent: Agent, make_env: EnvMaker, limits: RolloutLimits) -> Trajectory:
    """Play one episode, again from the start where it fails, and return the last attempt's record."""
    for attempt in range(limits.retries + 1):
        trajectory = await _Attempt(episode, agent, make_env, limits, attempt).supervised()
        if trajectory.status not in ("error", "timeout"):
            break
    return trajectory


class _Attempt:
    """One try at an episode: the environment, the session and the record that grows."""

    def __init__(self, episode: Episode, agent: Agent, make_env: EnvMaker, limits: RolloutLimits, attempt: int) -> None:
        self.episode, self.agent, self.make_env, self.limits = episode, agent, make_env, limits
        self.env: Env[Any, Any] | None = None
        self.session: Session | None = None
        self.overrun: asyncio.Future[str]
        """What took too long and cannot be ended, once something does."""
        task = episode.task
        self.record = Trajectory(
            id=episode.id,
            env=task.env,
            task=task.name,
            params=task.params,
            task_seed=task.seed,
            split=task.split,
            kind=task.kind,
            group=episode.group,
            seed=episode.seed,
            agent=agent.name,
            attempt=attempt,
        )

    async def supervised(self) -> Trajectory:
        """`run`, left to itself where code that was cancelled goes on for `ABANDON_SECONDS` all the same."""
        self.overrun = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(self.run())
        try:
            await asyncio.wait((running, self.overrun), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.wait((running,), timeout=2 * self.limits.close_seconds + ABANDON_SECONDS)
            raise
        if running.done():
            return running.result()
        running.cancel()
        running.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._fail("timeout", DeadlineError(self.overrun.result()))
        return msgspec.structs.replace(self.record, steps=list(self.record.steps))  # the other may still change

    async def run(self) -> Trajectory:
        """Play to the end, close everything, return the record; raises only when cancelled or interrupted."""
        try:
            await self._play()
        except DeadlineError as error:
            self._fail("timeout", error)
        except BaseException as error:  # sys.exit() in an environment ends its episode, not the program
            if is_meant(error):
                raise
            self._fail("error", error)
        finally:
            await self._close()
        if self.session is not None:
            self.record.nodes = self.session.nodes
        return self.record

    async def _play(self) -> None:
        limits, record, task = self.limits, self.record, self.episode.task
        self.env = env = self.make_env(task.env)
        record.env = env.spec.id if env.spec else task.env
        await self._within(limits.start_seconds, "start", env.start())
        seed = derive_seed(self.episode.seed, self.episode.id)
        observation, info = await self._within(limits.reset_seconds, "reset", env.reset(seed=task.seed, task=task))
        record.final_observation = observation = _text(observation)
        record.kind = record.kind or str(info.get("task_type", ""))
        record.start_hash = state = start_link(task.name, task.seed, observation)
        self.session = session = self.agent.session(seed=seed, env=env)
        for _ in range(limits.max_turns):
            began = time.perf_counter()
            decision = await self._within(limits.act_seconds, "the agent", session.act(observation, info))
            if decision.status != "ok":
                record.status = decision.status
                return
            decided = time.perf_counter()
            step = await self._within(limits.step_seconds, "step", env.step(decision.text))
            seconds = decided - began, time.perf_counter() - decided
            state = self._record(state, observation, decision, step, seconds)
            observation, info = record.final_observation, step[4]
            if step[2] or step[3]:
                break
        else:
            record.steps[-1].truncated = True
        if isinstance(env, SupportsVerify):
            self._add(await self._within(limits.verify_seconds, "verify", env.verify()))

    def _add(self, verdict: Verdict) -> None:
        """What grading found counts with the last step."""
        reward = _finite(verdict.reward)
        self.record.steps[-1].reward += reward
        self.record.total_reward += reward
        self.record.success = bool(verdict.success)

    def _record(self, state: str, seen: str, decision: Decision, step: Step[Any], seconds: tuple[float, float]) -> str:
        """Add one step to the record; returns the next link of the hash chain."""
        observation, reward, terminated, truncated, info = step
        text, reward = _text(observation), _finite(reward)
        state = next_link(state, decision.text, text, reward, bool(terminated), bool(truncated))
        record = self.record
        record.steps.append(
            StepRecord(
                observation=seen,
                action=decision.text,
                reward=reward,
                prompt=decision.prompt,
                completion=decision.completion,
                terminated=bool(terminated),
                truncated=bool(truncated),
                invalid=bool(info.get("invalid", False) or decision.error),
                state_hash=state,
                generate_seconds=seconds[0],
                env_seconds=seconds[1],
            )
        )
        record.total_reward += reward
        record.success = _success(info, record.total_reward)
        record.final_observation = text
        return state

    def _fail(self, status: Status, error: BaseException) -> None:
        record = self.record
        record.status, record.error, record.success = status, _one_line(error), False

    async def _close(self) -> None:
        """Close session and environment, each within the deadline; what goes wrong here spoils no episode."""
        try:
            await self._release(self.session)
        finally:
            await self._release(self.env)

    async def _release(self, what: Session | Env[Any, Any] | None) -> None:
        if what is None:
            return
        try:
            await self._within(self.limits.close_seconds, "close", what.close())
        except BaseException as error:
            if is_meant(error):
                raise
            self.record.meta["close_error"] = _one_line(error)

    async def _within(self, seconds: float, what: str, awaited: Awaitable[T]) -> T:
        """The result of `awaited`.

        Raises:
            DeadlineError: it took longer than `seconds`, and was cancelled.
        """
        message = f"{what} took longer than {seconds:g} s"
        abandoning = asyncio.get_running_loop().call_later(seconds + ABANDON_SECONDS, self._abandon, message)
        try:
            async with asyncio.timeout(seconds) as deadline:
                result = await awaited
        except TimeoutError:
            if deadline.expired():
                raise DeadlineError(message) from None
            raise
        finally:
            abandoning.cancel()
        if deadline.expired():  # it swallowed the cancellation
            raise DeadlineError(message)
        return result

    def _abandon(self, message: str) -> None:
        if not self.overrun.done():
            self.overrun.set_result(f"{message} and ignored its cancellation")


def _finite(reward: Any) -> float:
    number = float(reward)
    if not math.isfinite(number):
        raise EnvError(f"the environment gave the reward {number}")
    return number


def _text(observation: Any) -> str:
    if not isinstance(observation, str):
        kind = type(observation).__name__
        raise EnvError(f"the environment gave an observation of type {kind}; agents read text, so wrap it to give str")
    return observation


def _success(info: Info, total_reward: float) -> bool:
    """What the environment says; one that says nothing is solved by a positive return."""
    return bool(info.get("success", total_reward > 0))


def _one_line(error: BaseException) -> str:
    if isinstance(error, PalaestraError) and (text := " ".join(str(error).split())):
        return text
    return told(error)
