"""The environment: a repository with a problem, worked on with tools over many turns, and judged by sealed tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from palaestra.envs.core import Env, Info, Reset, Step, Verdict
from palaestra.envs.history import fresh_seed
from palaestra.envs.swe import images, oracle, patch, shell, suite
from palaestra.envs.swe.grade import Grade
from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.instances import read_instance
from palaestra.envs.swe.options import NAMES, Options, read_options
from palaestra.envs.swe.request import Request, read_request, schemas, usage
from palaestra.envs.swe.tools import Outcome, Tools
from palaestra.envs.swe.workspace import prepare
from palaestra.envs.tasks import Task
from palaestra.errors import EnvError, SandboxPathError
from palaestra.sandboxes.core import Sandbox, Session
from palaestra.sandboxes.sharing import Shared, borrow

_BEGIN = """You work in {repository}, with these tools. Make one call a turn:
{usage}

Solve this task, then submit. What you leave there is judged by tests that you may not see.

{problem}"""
_NO_CALL = "No call was found. Make one call:\n{usage}"
LONGEST_PROBLEM = 200_000
"""Characters of a problem statement that are shown."""


@dataclass(frozen=True, slots=True)
class State:
    """An episode so far, apart from what is in its sandbox."""

    instance: Instance
    options: Options
    commit: str
    """At which the work began."""
    kind: str
    """Of the task."""
    until: float
    """By `time.monotonic`: when the agent's time is over."""
    turns: int = 0
    plan: int = 0
    """How far the oracle's plan was followed."""
    over: bool = False
    result: patch.Patch | None = None
    """What was done, once it is over."""
    verdict: Verdict | None = None


class RepositoryEnv(Env[str, Any]):
    """A repository to change so that its tests pass.

    A task's `params` say what to read (see `read_instance`) and may hold `Options`, which come before those given here.
    Without a task, `reset` draws a training task of `swe/releases` from its seed.

    An action is text with a tag in it, a chat message with a tool call, or a block of shell code; the tools are those
    of `request.TOOLS`. `submit` terminates; after `max_turns` actions, or when the task's time is over, the episode is
    truncated. Then `info["patch"]` is what was changed. Rewards come from `verify`, which has the final state judged in
    a sealed copy. What a shell prints is not a function of the actions alone, so episodes are not repeatable.
    """

    def __init__(self, *, settings: Mapping[str, Any] | None = None, ready: int = 0, **options: Any) -> None:
        """Make it; nothing is started yet.

        Args:
            settings: of the back end, for example the address of a remote one.
            ready: sandboxes of each kind that the environments of an event loop keep ready together.
            options: any of `Options`.

        Raises:
            EnvError: there is no such option, or `ready` is below 0.
        """
        unknown = sorted(set(options) - set(NAMES))
        if unknown:
            raise EnvError(f"swe has no option {', '.join(unknown)}; it has settings, ready, {', '.join(NAMES)}")
        if ready < 0:
            raise EnvError(f"ready of swe is how many sandboxes are kept ready, not {ready}")
        self.settings, self.ready = dict(settings or {}), ready
        self.options = read_options(options, Options())
        self._engine: Shared | None = None
        self._engine_name = ""
        self._sandbox: Sandbox | None = None
        self._session: Session | None = None
        self._state: State | None = None

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin with a fresh sandbox; see `Env.reset`.

        Raises:
            ConfigError, DataError, UnknownNameError: the task's params name no instance, or its data is not there.
            SandboxError: there is no sandbox for it.
        """
        if task is None:
            task = await asyncio.to_thread(suite.drawn, fresh_seed(None) if seed is None else seed)
        chosen = read_options(task.params, self.options)
        await self._drop()
        instance = await asyncio.to_thread(read_instance, task.params)
        engine = await self._borrowed(chosen.backend)
        if chosen.build and instance.build and chosen.backend == "docker":
            await images.ensure(instance, str(self.settings.get("host", "")))
        self._sandbox, commit = await prepare(engine, instance)
        self._session = await shell.begin(self._sandbox, instance.repository)
        until = time.monotonic() + instance.agent_seconds
        self._state = State(instance, chosen, commit, task.kind, until)
        text = _BEGIN.format(repository=instance.repository, usage=usage(), problem=instance.problem[:LONGEST_PROBLEM])
        return Reset(text, self._info(invalid=False))

    async def step(self, action: Any) -> Step[str]:
        """Carry out one call. An action without one is answered, marked invalid, and takes a turn all the same.

        Raises:
            EnvError: the episode has not begun, or is over.
            SandboxError: the sandbox is lost: it was killed, or what runs it is gone.
        """
        state = self._playing
        if state.over:
            raise EnvError("the episode is over; call reset() first")
        request = read_request(action)
        outcome = await self._served(request)
        submitted = request is not None and request.name == "submit"
        plan = oracle.follow(state.instance, state.plan, state.commit, action, outcome.ok)
        turns, late = state.turns + 1, time.monotonic() >= state.until
        truncated = not submitted and (late or turns >= state.options.max_turns)
        self._state = replace(state, turns=turns, plan=plan, over=submitted or truncated, verdict=None)
        info = self._info(outcome.refused)
        if request is not None:
            info["tool"] = {"name": request.name, "ok": outcome.ok, **outcome.more}
        if submitted or truncated:
            info |= await self._result()
        return Step(outcome.text, 0.0, submitted, truncated, info)

    async def verify(self) -> Verdict:
        """Have the files as they are now judged in a sealed copy; see `Options.reward` for the reward.

        Raises:
            SandboxError: the sandbox is lost, or there is none to judge in.
        """
        from palaestra.envs.swe.grading import grade

        state, sandbox = self._playing, self._open
        if state.verdict is None:
            engine = await self._borrowed(state.options.backend)
            with suppress(SandboxPathError):  # says that it is a folder, unless the sandbox is lost
                await sandbox.read_file(state.instance.repository)

            async def fresh() -> Sandbox:
                return (await prepare(engine, state.instance, network=False))[0]

            thorough = state.options.reward == "partial"
            found = await grade(state.instance, sandbox, fresh, thorough=thorough)
            told = {**_told(found), **await self._result()}
            verdict = Verdict(paid(found, state.instance, state.options), found.solved, told)
            self._state = state = replace(self._playing, verdict=verdict)
        assert state.verdict is not None
        return state.verdict

    async def fork(self, n: int = 1) -> list[Env[str, Any]]:
        """Continuations with the files and the shell's variables of this one; what runs in the background stays here.

        Raises:
            SandboxError: there are no sandboxes for them; then none is left.
        """
        state, session = self._playing, self._session
        if n < 0:
            raise EnvError(f"cannot fork {n} times")
        assert session is not None
        saved = await shell.save(session)
        siblings: list[RepositoryEnv] = []
        for sandbox in await self._open.fork(n):
            siblings.append(sibling := self._sibling(state))
            sibling._sandbox = sandbox
        try:
            for sibling in siblings:
                await sibling._borrowed(state.options.backend)
                sibling._session = await shell.resume(sibling._open, state.instance.repository, saved)
        except BaseException:
            await asyncio.gather(*(sibling.close() for sibling in siblings), return_exceptions=True)
            raise
        return [*siblings]

    async def close(self) -> None:
        """End the sandbox and all that runs in it."""
        try:
            await self._drop()
        finally:
            engine, self._engine = self._engine, None
            if engine is not None:
                await engine.give_back()

    async def oracle(self) -> str:
        """The known solution, as a patch or a script, then `submit`.

        Raises:
            EnvError: the task has none.
        """
        state = self._playing
        return await asyncio.to_thread(oracle.advise, state.instance, state.plan, state.commit)

    def tools(self) -> Sequence[Mapping[str, Any]]:
        """`shell`, `view`, `search`, `edit`, `apply_patch` and `submit`."""
        return schemas()

    async def render(self) -> str:
        """The task, and what was changed so far."""
        state = self._playing
        made = await patch.changes(self._open, state.instance, state.commit)
        head = (
            f"{state.instance.name} ({state.instance.format}), turn {state.turns} of at most {state.options.max_turns}"
        )
        return f"{head}\n{made.text or made.problem or 'nothing was changed'}"

    def _sibling(self, state: State) -> RepositoryEnv:
        sibling = RepositoryEnv(settings=self.settings, ready=self.ready)
        sibling.options, sibling._state, sibling.spec = self.options, state, self.spec
        return sibling

    async def _borrowed(self, name: str) -> Shared:
        if self._engine is not None and self._engine_name != name:
            engine, self._engine = self._engine, None
            await engine.give_back()
        if self._engine is None:
            self._engine, self._engine_name = borrow(name, self.settings, self.ready), name
        return self._engine

    async def _served(self, request: Request | None) -> Outcome:
        state, session = self._playing, self._session
        if request is None:
            return Outcome(_NO_CALL.format(usage=usage()), False, True)
        if request.name == "submit":
            return Outcome("Submitted.")
        assert session is not None
        options = state.options
        seconds = max(1.0, min(options.seconds, state.until - time.monotonic()))
        tools = Tools(self._open, session, state.instance.repository, options.observation, seconds)
        return await tools.serve(request)

    async def _result(self) -> Info:
        state = self._playing
        made = state.result or await patch.changes(self._open, state.instance, state.commit)
        if state.over:
            self._state = replace(state, result=made)
        return {"patch": made.text, **({"patch_problem": made.problem} if made.problem else {})}

    async def _drop(self) -> None:
        """Close the sandbox, also when nothing answers there any more."""
        sandbox, self._sandbox, self._session, self._state = self._sandbox, None, None, None
        if sandbox is not None:
            await sandbox.close()

    def _info(self, invalid: bool) -> Info:
        state = self._playing
        return {"success": False, "invalid": invalid, "score": 0.0, "task_type": state.kind or state.instance.format}

    @property
    def _playing(self) -> State:
        if self._state is None:
            raise EnvError("no task is being worked on; call reset() first")
        return self._state

    @property
    def _open(self) -> Sandbox:
        assert self._sandbox is not None
        return self._sandbox


def paid(found: Grade, instance: Instance, options: Options) -> float:
    """The reward for a verdict; see `Options.reward`."""
    if options.reward == "solved" or found.solved:
        return float(found.solved)
    if not instance.fail_to_pass:
        return found.share or 0.0
    failed = set(found.failed)
    if any(test in failed for test in instance.pass_to_pass):
        return 0.0
    left = sum(test in failed for test in instance.fail_to_pass)
    return 1.0 - left / len(instance.fail_to_pass)


def _told(found: Grade) -> Info:
    info: Info = {"passed": found.passed, "required": found.required, "seconds": found.seconds}
    more = {"reason": found.reason, "caught": found.caught, "left_out": list(found.left_out)}
    return info | {name: value for name, value in more.items() if value}
