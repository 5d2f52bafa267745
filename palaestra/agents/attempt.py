"""One try at an episode: the environment, the agent's session and the record that grows, stage by stage.

Every await has a deadline. What fails becomes the record's status; nothing but a cancellation, or an interrupt by a
person, is ever raised. Deadlines end awaits: an environment that blocks the whole thread needs a process of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from palaestra.agents.agent import Agent, Decision, NotedSession, Session, SupportsFork
from palaestra.agents.episode import EnvMaker, Episode, RolloutLimits
from palaestra.envs.core import Env, Info, Step, SupportsVerify, Verdict
from palaestra.envs.ending import is_meant, told
from palaestra.errors import ConfigError, DeadlineError, EnvError, PalaestraError
from palaestra.seeds import derive_seed
from palaestra.trajectories.chain import next_link, start_link
from palaestra.trajectories.record import Status, StepRecord, Trajectory

T = TypeVar("T")

ABANDON_SECONDS = 5.0
"""How long code may go on after its cancellation before its episode ends without it."""


class Attempt:
    """`played` plays it whole. Whoever plays several side by side calls its stages through `stage`: `begin`, then
    `decide` and `take` in turn, `grade` once `take` says that it is over, and `end` whatever came before."""

    def __init__(self, episode: Episode, agent: Agent, make_env: EnvMaker, limits: RolloutLimits, number: int) -> None:
        """`number`: how often the episode was tried before."""
        self.episode, self.agent, self.make_env, self.limits = episode, agent, make_env, limits
        self.env: Env[Any, Any] | None = None
        self.session: Session | None = None
        self.info: Info = {}
        """Of the last reset or step."""
        self._state = ""
        """The hash chain so far."""
        self._thought = 0.0
        """Seconds that the last decision took."""
        self._spare: Attempt | None = None
        """A branch that nobody fetched yet."""
        self._left = False
        """Whether something that ignores its cancellation still runs; it closes everything should it end."""
        self._final: Trajectory | None = None
        """The record as it was when that was left to itself."""
        self._overrun: asyncio.Future[str]
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
            attempt=number,
        )

    @property
    def result(self) -> Trajectory:
        """The record, which nothing changes any more once the attempt has ended."""
        return self._final or self.record

    @property
    def failed(self) -> bool:
        """Whether it was cut off from outside."""
        return self.result.status in ("error", "timeout")

    async def played(self) -> Trajectory:
        """Play to the end, close everything, return the record."""
        await self._supervised(self._whole())
        return self.result

    async def stage(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """The result of one stage; `None` where it failed, or took too long: the record then says so."""
        return await self._supervised(self._contained(work))

    async def begin(self) -> None:
        """Make and reset the environment, and begin the conversation."""
        limits, record, task = self.limits, self.record, self.episode.task
        self.env = env = self.make_env(task.env)
        record.env = spec.id if (spec := env.spec) else task.env  # a wrapped one's is derived at every look
        await self._within(limits.start_seconds, "start", env.start())
        observation, self.info = await self._within(limits.reset_seconds, "reset", env.reset(seed=task.seed, task=task))
        record.final_observation = observation = _text(observation)
        record.kind = record.kind or str(self.info.get("task_type", ""))
        record.start_hash = self._state = start_link(task.name, task.seed, observation)
        self.session = self.agent.session(seed=self._seed, env=env)

    async def decide(self) -> Decision | None:
        """What the agent does next; `None` where it gives up, which ends the episode."""
        assert self.session is not None
        began = time.perf_counter()
        act = self.session.act(self.record.final_observation, self.info)
        decision = await self._within(self.limits.act_seconds, "the agent", act)
        self._thought = time.perf_counter() - began
        if decision.status == "ok":
            return decision
        self.record.status = decision.status
        return None

    async def take(self, decision: Decision) -> bool:
        """Do it; whether the episode is over now."""
        assert self.env is not None
        began = time.perf_counter()
        step = await self._within(self.limits.step_seconds, "step", self.env.step(decision.text))
        self._record(decision, step, time.perf_counter() - began)
        over = bool(step[2] or step[3])
        if not over and len(self.record.steps) >= self.limits.max_turns:
            self.record.steps[-1].truncated = over = True
        self._keep_patch(self.info)
        return over

    async def grade(self) -> None:
        """What an environment that grades finds in the final state counts with the last step."""
        if not isinstance(self.env, SupportsVerify):
            return
        verdict: Verdict = await self._within(self.limits.verify_seconds, "verify", self.env.verify())
        reward = _finite(verdict.reward)
        self.record.steps[-1].reward += reward
        self.record.total_reward += reward
        self.record.success = bool(verdict.success)
        self._keep_patch(verdict.info)

    async def branch(self, episode: Episode) -> bool:
        """Prepare another attempt that stands where this one stood before its last decision, to go on as `episode`.

        Called between `decide` and `take`; `fetch` then gives the branch, and `end` closes it where nobody did. False
        where environment or session cannot be forked: `meta["failed_forks"]` says why, and this one goes on.
        """
        try:
            await self._within(self.limits.fork_seconds, "fork", self._fork(episode))
        except BaseException as error:
            if is_meant(error):
                raise
            self.record.meta.setdefault("failed_forks", []).append(_one_line(error))
            await self._drop_spare()
            return False
        return True

    def fetch(self) -> Attempt:
        """The branch that `branch` prepared; the caller ends it."""
        child, self._spare = self._spare, None
        assert child is not None
        return child

    async def end(self) -> None:
        """Close session and environment, each within the deadline; what goes wrong here spoils no episode."""
        if self._left:
            return
        if self.session is not None:
            self.record.nodes = self.session.nodes
        if isinstance(self.session, NotedSession):
            self.record.meta |= self.session.notes
        (session, self.session), (env, self.env) = (self.session, None), (self.env, None)
        try:
            await self._drop_spare()
        finally:
            try:
                await self._release(session)
            finally:
                await self._release(env)

    async def _whole(self) -> None:
        try:
            await self._contained(self._play)
        finally:
            await self.end()

    async def _play(self) -> None:
        await self.begin()
        for _ in range(self.limits.max_turns):
            decision = await self.decide()
            if decision is None:
                return
            if await self.take(decision):
                break
        await self.grade()

    async def _supervised(self, work: Coroutine[Any, Any, T]) -> T | None:
        """`work`, left to itself where code that was cancelled goes on for `ABANDON_SECONDS` all the same."""
        self._overrun = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(work)
        try:
            await asyncio.wait((running, self._overrun), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            running.cancel()
            done, _ = await asyncio.wait((running,), timeout=2 * self.limits.close_seconds + ABANDON_SECONDS)
            self._left = not done
            raise
        if running.done():
            return running.result()
        running.cancel()
        running.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._fail("timeout", DeadlineError(self._overrun.result()))
        self._final = msgspec.structs.replace(self.record, steps=list(self.record.steps))  # the other may still change
        self._left = True
        return None

    async def _contained(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """The result of `work`; its failure is in the record."""
        try:
            return await work()
        except DeadlineError as error:
            self._fail("timeout", error)
        except BaseException as error:  # sys.exit() in an environment ends its episode, not the program
            if is_meant(error):
                raise
            self._fail("error", error)
        finally:
            if self._left:
                self._left = False
                await self.end()
        return None

    async def _fork(self, episode: Episode) -> None:
        env, session, agent = self.env, self.session, self.agent
        assert env is not None
        assert session is not None
        if not isinstance(agent, SupportsFork):
            raise ConfigError(f"the agent {agent.name!r} has no fork(), so its episodes cannot branch")
        (sibling,) = await env.fork(1)
        self._spare = child = Attempt(episode, agent, self.make_env, self.limits, 0)
        child.env, child.info, child._state = sibling, self.info, self._state
        child._inherit(self.record)
        child.session = agent.fork(session, seed=child._seed, env=sibling)

    def _inherit(self, parent: Trajectory) -> None:
        """The parent's record so far. Nodes are shared, steps are not: the last one of each still changes."""
        steps = [msgspec.structs.replace(step) for step in parent.steps]
        self.record = msgspec.structs.replace(
            self.record,
            env=parent.env,
            kind=parent.kind,
            start_hash=parent.start_hash,
            success=parent.success,
            total_reward=parent.total_reward,
            final_observation=parent.final_observation,
            steps=steps,
            branch_of=(parent.id, len(steps)),
        )

    @property
    def _seed(self) -> int:
        return derive_seed(self.episode.seed, self.episode.id)

    def _record(self, decision: Decision, step: Step[Any], seconds: float) -> None:
        """Add one step to the record and to the hash chain."""
        observation, reward, terminated, truncated, info = step
        text, reward = _text(observation), _finite(reward)
        self._state = next_link(self._state, decision.text, text, reward, bool(terminated), bool(truncated))
        record = self.record
        record.steps.append(
            StepRecord(
                observation=record.final_observation,
                action=decision.text,
                reward=reward,
                prompt=decision.prompt,
                completion=decision.completion,
                terminated=bool(terminated),
                truncated=bool(truncated),
                invalid=bool(info.get("invalid", False) or decision.error),
                state_hash=self._state,
                tool=tool if isinstance(tool := info.get("tool"), dict) else None,
                generate_seconds=self._thought,
                env_seconds=seconds,
            )
        )
        record.total_reward += reward
        record.success = _success(info, record.total_reward)
        record.final_observation, self.info = text, info

    def _keep_patch(self, info: Info) -> None:
        if isinstance(patch := info.get("patch"), str):
            self.record.meta["patch"] = patch

    def _fail(self, status: Status, error: BaseException) -> None:
        record = self.record
        record.status, record.error, record.success = status, _one_line(error), False

    async def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.end()

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
        if not self._overrun.done():
            self._overrun.set_result(f"{message} and ignored its cancellation")


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, which run side by side; where one raises, the others are cancelled and waited for."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
