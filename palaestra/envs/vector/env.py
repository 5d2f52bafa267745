"""`PoolVectorEnv`: many environments in a few worker processes, as one `gymnasium.vector.VectorEnv`."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from palaestra.envs.isolation.placement import Placement
from palaestra.errors import EnvError, PalaestraError, require

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
else:
    gymnasium = require("gymnasium", "gymnasium")
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space

from palaestra.envs.vector.crew import Crew
from palaestra.envs.vector.description import NoDescriptionError, rebuild
from palaestra.envs.vector.layout import Array
from palaestra.envs.vector.memory import Memory, new_file
from palaestra.envs.vector.orders import (
    Act,
    Answer,
    Ask,
    Assign,
    Close,
    Done,
    Failure,
    Made,
    Make,
    Reset,
    Values,
    encode,
)
from palaestra.envs.vector.packing import pack, unpack
from palaestra.envs.vector.source import source_of

_Steps = tuple[Any, Array, Array, Array, dict[str, Any]]


class PoolVectorEnv(VectorEnv[Any, Any, Any]):
    """`num_envs` environments, shared out among worker processes that each step theirs by one message.

        envs = PoolVectorEnv("CartPole-v1", 64, workers=2)
        observations, infos = envs.reset(seed=7)
        observations, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
        envs.close()

    What it returns equals what Gymnasium's `SyncVectorEnv` returns, in all its autoreset modes; see there for seeds,
    options (`reset_mask` included) and infos. Observations and actions of fixed size lie in memory that all processes
    share. Text and whatever else has no fixed size, and infos that are not empty, are sent as messages; nothing is
    ever unpickled.

    Where an environment raises, `step` and `reset` raise an `EnvError` that names it. Where a worker crashes or takes
    longer than the placement's deadline, it is ended, and the error names the environments that are gone. In both
    cases `reset` begins anew, with another worker in place of the one that was lost.

    Args:
        env: an id of Palaestra's (whose environments take and give text) or of Gymnasium's, a spec of either, a class
            or function at the top of a module, or its name, `module:attribute`.
        num_envs: how many environments.
        workers: how many processes; `None` for one a processor core.
        autoreset_mode: Gymnasium's.
        copy: whether observations are copies. If not, the next `step` or `reset` overwrites them.
        placement: its `deadlines`, `memory_bytes` (of each worker) and `environ` count; `None` for those of the spec,
            where there is one of Palaestra's.
        **kwargs: for what makes an environment.

    Raises:
        UnknownNameError: no such id.
        EnvError: an environment cannot be made, or has other spaces than the others.
        WorkerError: there can be no worker process.
        MissingExtraError: gymnasium is not installed.
    """

    def __init__(
        self,
        env: Any,
        /,
        num_envs: int,
        *,
        workers: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        placement: Placement | None = None,
        **kwargs: Any,
    ) -> None:
        workers = min(num_envs, len(os.sched_getaffinity(0)) if workers is None else workers)
        if workers < 1:
            raise EnvError("a vector needs one environment and one worker, at least")
        self.num_envs, self.copy = num_envs, copy
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self._source = source_of(env, kwargs)
        self._placement = placement or self._source.placement
        self._unready = "step was called before reset; call reset first"
        self._crews: list[Crew] = []
        self._memory: Memory | None = None
        bounds = [worker * num_envs // workers for worker in range(workers + 1)]
        self._makes = [self._make(worker, bounds[worker], bounds[worker + 1], workers) for worker in range(workers)]
        try:
            self._man()
        except BaseException:
            self.close()
            raise

    def _make(self, worker: int, first: int, last: int, workers: int) -> Make:
        return Make(
            source=self._source,
            first=first,
            last=last,
            total=self.num_envs,
            worker=worker,
            workers=workers,
            autoreset_mode=self.autoreset_mode.value,
        )

    def _man(self) -> None:
        """Start the workers that are not there."""
        crews = {crew.index: crew for crew in self._crews if crew.alive}
        fresh: list[Crew] = []
        try:
            fresh.extend(Crew(make, self._placement) for make in self._makes if make.worker not in crews)
            for crew, made in self._answers(fresh, "create"):
                assert isinstance(made, Made)
                self._agree(crew, made)
                crew.share(self._file)
            self._answers(fresh, "create")
        except BaseException:
            for crew in fresh:
                crew.end()
            raise
        crews.update((crew.index, crew) for crew in fresh)
        self._crews = [crews[make.worker] for make in self._makes]

    def _agree(self, crew: Crew, made: Made) -> None:
        """Have the spaces that all workers have."""
        if self._memory is None:
            self._spaces = made.spaces
            self._describe(made)
            self._share_memory()
        elif made.spaces != self._spaces:
            raise EnvError(f"the spaces of {crew.who} differ from those of the others")

    def _describe(self, made: Made) -> None:
        self.metadata, self.render_mode = unpack(made.metadata), made.render_mode
        self.metadata["autoreset_mode"] = self.autoreset_mode
        try:
            self.single_observation_space, self.single_action_space = map(rebuild, unpack(made.spaces))
        except NoDescriptionError:  # made here, once, as Gymnasium does with all
            env = self._source.make()
            self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
            env.close()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _share_memory(self) -> None:
        spaces = self.single_observation_space, self.single_action_space
        self._file = new_file(*spaces, self.num_envs, len(self._makes))
        self._close_file = weakref.finalize(self, os.close, self._file)
        self._memory = Memory(self._file, *spaces, self.num_envs, len(self._makes))

    @property
    def _shared(self) -> Memory:
        assert self._memory is not None
        return self._memory

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment, or in those of `options["reset_mask"]`.

        Args:
            seed: of environment 0, whose successors get the next ones; or one for each; or `None` for any.
            options: passed on to each environment.

        Returns:
            The batch of observations, and the infos in the format of vectors.

        Raises:
            EnvError: an environment raised, did not answer in time, or is gone.
            ValueError, TypeError: seeds or mask do not fit.
        """
        self._assert_open()
        seeds, mask, options = _seeds(seed, self.num_envs), None, dict(options) if options is not None else None
        if options is not None and "reset_mask" in options:
            mask = _mask(options.pop("reset_mask"), self.num_envs)
            self._assert_ready()
        self._man()
        packed = pack(options)
        answers = self._tell(
            "reset",
            lambda crew: encode(
                Reset(
                    seeds[crew.first : crew.last],
                    None if mask is None else mask[crew.first : crew.last].tolist(),
                    packed,
                )
            ),
        )
        infos = self._take_in(answers)
        return self._shared.observations.tree(self.copy), infos

    def step(self, actions: Any) -> _Steps:
        """Take one action in each environment.

        Args:
            actions: a batch as `action_space` has them.

        Returns:
            Observations, rewards (`float64`), terminated, truncated (`bool`, of shape `(num_envs,)`) and infos.

        Raises:
            EnvError: the actions are no such batch, or an environment raised, did not answer in time, or is gone.
        """
        self._assert_open()
        self._assert_ready()
        memory = self._shared
        try:
            memory.actions.put_all(actions)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise EnvError(f"not a batch of actions for {self.num_envs} environments: {error}") from error
        loose = memory.actions.loose
        if loose:
            infos = self._take_in(
                self._tell("step", lambda crew: encode(Act(pack([c[crew.first : crew.last] for c in loose]))))
            )
        else:
            infos = self._take_in(self._tell("step", _nothing))
        return (
            memory.observations.tree(self.copy),
            memory.rewards.copy(),
            memory.terminated.copy(),
            memory.truncated.copy(),
            infos,
        )

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call the method `name` of every environment, or read the attribute, through its wrappers.

        Arguments and results are JSON values, arrays, tuples and sets.

        Raises:
            EnvError: an environment raised, or a value cannot be sent.
        """
        self._assert_open()
        order = encode(Ask(name, pack((args, kwargs))))
        values: list[Any] = []
        for _, answer in self._tell("step", lambda crew: order):
            assert isinstance(answer, Values)
            values += unpack(answer.values)
        return tuple(values)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute `name` of every environment; see `call`."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set the attribute `name`: to each of a list or tuple of values in turn, or everywhere to the same value.

        Raises:
            ValueError: there are not as many values as environments.
            EnvError: a value cannot be sent.
        """
        self._assert_open()
        if not isinstance(values, list | tuple):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"there are {len(values)} values for {self.num_envs} environments")
        self._tell("step", lambda crew: encode(Assign(name, pack(list(values[crew.first : crew.last])))))

    def render(self) -> tuple[Any, ...] | None:
        """What every environment renders."""
        return self.call("render")

    @property
    def np_random_seed(self) -> Any:
        """The seeds of the environments' generators."""
        return self.get_attr("np_random_seed")

    @property  # type: ignore[misc]  # there is nothing to set
    def np_random(self) -> Any:
        """Nothing: generators live in the workers.

        Raises:
            EnvError: always.
        """
        raise EnvError("the environments' generators live in their workers; seed them by reset")

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments and end the workers. Never raises; `close`, which calls it, may be called again."""
        for crew in self._crews:
            if crew.alive and crew.waiting:  # with something that was given up
                crew.end()
        with suppress(PalaestraError):
            self._tell("close", lambda crew: encode(Close()))
        for crew in self._crews:
            crew.end()
        if self._memory is not None:
            self._memory.close()
            self._close_file()

    def _tell(self, phase: str, order: Callable[[Crew], bytes]) -> list[tuple[Crew, Answer | None]]:
        """Tell all workers something, and wait for their answers."""
        crews = [crew for crew in self._crews if crew.alive]
        if len(crews) < len(self._crews) and phase != "close":
            raise EnvError(f"the worker of {next(c.who for c in self._crews if not c.alive)} is gone; call reset first")
        payloads = [order(crew) for crew in crews]
        if phase in ("reset", "step"):
            self._unready = "the last call failed; call reset first, without a mask"
        seconds = self._seconds(phase)
        for crew, payload in zip(crews, payloads, strict=True):
            crew.send(payload, seconds)
        answers = self._answers(crews, phase)
        self._unready = self._unready if phase != "step" and phase != "reset" else ""
        return answers

    def _answers(self, crews: Sequence[Crew], phase: str) -> list[tuple[Crew, Answer | None]]:
        """Of all of them, even where one fails: who has answered can go on.

        Raises:
            EnvError: the first failure.
        """
        seconds = self._seconds(phase)
        until = time.monotonic() + seconds
        answers: list[tuple[Crew, Answer | None]] = []
        first: PalaestraError | None = None
        try:
            for crew in crews:
                try:
                    answers.append((crew, answer := crew.receive(phase, until, seconds, self._now(crew, phase))))
                    if isinstance(answer, Failure):
                        first = first or _raised(answer)
                except PalaestraError as error:
                    first = first or error
        except BaseException:
            for crew in crews:
                if crew.waiting:
                    crew.end()
            raise
        if first is not None:
            raise first
        return answers

    def _now(self, crew: Crew, phase: str) -> Callable[[], int] | None:
        return None if phase in ("create", "close") else lambda: int(self._shared.now[crew.index])

    def _seconds(self, phase: str) -> float:
        return float(getattr(self._placement.deadlines, phase))

    def _take_in(self, answers: list[tuple[Crew, Answer | None]]) -> dict[str, Any]:
        """Infos and observations that came in messages; returns the infos in the format of vectors."""
        infos: dict[str, Any] = {}
        for crew, answer in answers:
            if not isinstance(answer, Done):
                continue
            for number, info in unpack(answer.infos):
                infos = self._add_info(infos, info, number)
            for column, values in zip(self._shared.observations.loose, unpack(answer.observations), strict=True):
                column[crew.first : crew.last] = values
        return infos

    def _assert_ready(self) -> None:
        if self._unready:
            raise EnvError(self._unready)

    def _assert_open(self) -> None:
        if self.closed:
            raise EnvError("the environments are closed; make new ones")

    def __repr__(self) -> str:
        return f"PoolVectorEnv({self._source.name}, num_envs={self.num_envs}, workers={len(self._makes)})"


def _nothing(crew: Crew) -> bytes:
    """Actions that are all in the shared memory."""
    return b""


def _raised(failure: Failure) -> EnvError:
    where = f" ({failure.where})" if failure.where else ""
    error = "" if failure.error == "EnvError" else f"{failure.error}: "
    return EnvError(f"environment {failure.number}: {error}{failure.message}{'' if not error else where}")


def _seeds(seed: int | Sequence[int | None] | None, count: int) -> list[int | None]:
    if seed is None:
        return [None] * count
    if isinstance(seed, int | np.integer):
        return [index(seed) + i for i in range(count)]
    if len(seed) != count:
        raise ValueError(f"there are {len(seed)} seeds for {count} environments")
    return [None if each is None else index(each) for each in seed]


def _mask(mask: Any, count: int) -> Array:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError("options['reset_mask'] must be a NumPy array of bool")
    if mask.shape != (count,) or not mask.any():
        raise ValueError(f"options['reset_mask'] must have shape ({count},) and be true somewhere")
    return mask
