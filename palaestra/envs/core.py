"""The environment contract: Gymnasium's names, order and meaning, made asynchronous.

An episode is `reset` once, then `step` until `terminated` or `truncated`. Everything else that an environment may
offer (`snapshot`/`restore`, `oracle`, `tools`, `render`) is a structural protocol below: a class has the capability by
having the methods, and nothing requires it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from palaestra.envs.registry import EnvSpec
    from palaestra.envs.tasks import Task

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")

Info = dict[str, Any]
"""Side information of one reset or step, new each time. Keys with a fixed meaning:

`admissible_commands` (list of str): every action that would change or reveal something now;
`success` (bool): whether the task is solved so far;
`invalid` (bool): whether the last action was refused (not understood, or impossible here);
`task_type` (str): the row under which evaluation reports the episode;
`score` (float): what the task's rewards add up to so far;
`tool` (dict): the tool that the last action called: `name`, `ok` (bool), and what else the tool tells of it;
`patch` (str): at the end of an episode, the work as a diff; its record keeps it in `meta`.
"""


class Reset(NamedTuple, Generic[ObsT]):
    """What `Env.reset` returns; unpacks as Gymnasium's `(observation, info)`."""

    observation: ObsT
    info: Info


class Step(NamedTuple, Generic[ObsT]):
    """What `Env.step` returns; unpacks as Gymnasium's five-tuple."""

    observation: ObsT
    reward: float
    terminated: bool
    truncated: bool
    info: Info


class Verdict(NamedTuple):
    """What `verify` found in the final state."""

    reward: float
    """Added to the episode's last step."""
    success: bool
    info: Info


class Env(Generic[ObsT, ActT]):
    """One environment instance, which plays one episode at a time.

    Observations and actions are text (`str`) or chat messages (OpenAI message and tool-call shape). An instance owns
    its generator: it never touches process-global random state, so that episodes are reproducible however many
    run side by side.
    """

    spec: EnvSpec | None = None

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[ObsT]:
        """Begin an episode.

        Args:
            seed: seeds all randomness of the episode; `None` draws a fresh one.
            task: what to solve; `None` lets the environment draw a task from `seed`.
            options: settings of this episode only.

        Returns:
            The first observation and info, freshly made: neither may be changed by a later `step`, because learners
            and records keep references to them.
        """
        raise NotImplementedError

    async def step(self, action: ActT) -> Step[ObsT]:
        """Take one action.

        Returns:
            A new observation, the reward of this transition, `terminated` (the task itself ended: the value of the
            next state is zero), `truncated` (a limit outside the task ended the episode: the value is unknown), info.
            The two flags are separate because a learner that bootstraps must know which it was.

        Raises:
            EnvError: if the episode has not begun or is over.

        An action that makes no sense is data, not an error: answer it in the observation and set `info["invalid"]`.
        """
        raise NotImplementedError

    async def start(self) -> None:
        """Get ready for `reset`: wait for a free place, start a process. `reset` does it where nobody did before.

        Apart from `reset`, so that waiting has a deadline of its own. Most environments have nothing to do here.
        """

    async def fork(self, n: int = 1) -> list[Env[ObsT, ActT]]:
        """Make `n` independent continuations of the present episode, by the cheapest way that is right.

        Each behaves from here on as this one would: the same actions give the same observations and rewards, and
        nothing that is done to one of them, closing included, affects another.

        Returns:
            `n` environments, each to be closed by the caller. This one goes on as if nothing had happened.

        Raises:
            EnvError: no episode has begun, or the environment was not made by `make`.
            ReplayError: it can only be forked by replaying its episode, and the replay went another way.
        """
        from palaestra.envs.fork import fork

        return await fork(self, n)

    async def close(self) -> None:
        """Release processes, files and sockets. May be called more than once, and without `reset`."""

    @property
    def unwrapped(self) -> Env[Any, Any]:
        """The innermost environment, below all wrappers."""
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


@runtime_checkable
class SupportsSnapshot(Protocol):
    """Mid-episode state that can be taken and put back, any number of times, into any instance of the class."""

    async def snapshot(self) -> Any:
        """An immutable copy of the episode's whole state, its generator included."""

    async def restore(self, state: Any) -> None:
        """Continue from `state`: the same actions then give the same observations and rewards."""


@runtime_checkable
class SupportsOracle(Protocol):
    """An expert, for validating tasks and for warm starts. It may read what the agent cannot see."""

    async def oracle(self) -> Any:
        """The next action of a plan that solves the task from the present state; never changes the state."""


@runtime_checkable
class SupportsVerify(Protocol):
    """A judgement of the final state, for environments that grade when the episode is over, however it ended."""

    async def verify(self) -> Verdict:
        """Grade the present state. The rollout driver calls it once, after the last step."""


@runtime_checkable
class SupportsTools(Protocol):
    """Actions offered as tool calls."""

    def tools(self) -> Sequence[Mapping[str, Any]]:
        """JSON-schema descriptions in OpenAI's `tools` shape; fixed from `reset` to the end of the episode."""


@runtime_checkable
class SupportsRender(Protocol):
    """A picture of the state for people."""

    async def render(self) -> str:
        """The state as text."""
