"""A worker of a vector: some of the environments, stepped one after another."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, iterate

from palaestra.envs.isolation.host import failure
from palaestra.envs.vector.description import describe
from palaestra.envs.vector.layout import Array
from palaestra.envs.vector.line import Line
from palaestra.envs.vector.memory import Memory
from palaestra.envs.vector.orders import (
    Act,
    Ask,
    Assign,
    Done,
    Failure,
    Made,
    Make,
    Reset,
    Values,
    decode_order,
    encode,
)
from palaestra.envs.vector.packing import pack, unpack
from palaestra.errors import EnvError


def serve(near: socket.socket) -> None:
    """Make the environments that the first order tells of, and obey until the other end closes."""
    line = Line(near)
    # A process that an environment forks off comes back here too, and would answer a second time.
    os.register_at_fork(after_in_child=near.close)
    order = decode_order(line.receive())
    assert isinstance(order, Make)
    worker = _Worker(order)
    try:
        with suppress(EOFError, OSError):
            line.send(worker.safely(worker.make))
            _, files, _, _ = socket.recv_fds(near, 4, 1)
            if files:
                line.send(worker.safely(lambda: worker.share(files[0])))
            while files and not worker.closed:
                line.send(worker.answer(line.receive()))
    finally:
        worker.close()


class _Worker:
    def __init__(self, order: Make) -> None:
        self.order = order
        self.closed = False
        self.envs: list[gymnasium.Env[Any, Any]] = []
        self.numbers = range(order.first, order.last)
        self.over: list[Any] = [False] * order.total
        """By number: whether the last step ended an episode that is not begun anew yet."""

    def make(self) -> bytes:
        descriptions: list[bytes] = []
        for number in self.numbers:
            env = self.order.source.make()
            self.envs.append(env)
            descriptions.append(pack([describe(env.observation_space), describe(env.action_space)]))
            if descriptions[-1] != descriptions[0]:
                raise EnvError(
                    f"the spaces of environment {number} differ from those of environment {self.order.first}"
                )
        return encode(Made(descriptions[0], pack(_sendable(self.envs[0].metadata)), self.envs[0].render_mode))

    def share(self, file: int) -> bytes:
        order = self.order
        memory = Memory(file, self.envs[0].observation_space, self.envs[0].action_space, order.total, order.workers)
        memory.keep_from_forks()
        os.close(file)
        self.actions, self.observations = memory.actions, memory.observations
        self.batched = batch_space(self.envs[0].action_space, len(self.envs))
        self.rewards, self.now = _items(memory.rewards), _items(memory.now[order.worker :])
        self.terminated, self.truncated = _items(memory.terminated), _items(memory.truncated)
        self.put = memory.observations.put()
        self.step = _STEPS[AutoresetMode(order.autoreset_mode)]
        return b""

    def answer(self, packed: bytes) -> bytes:
        if not packed:
            return self.safely(self._act)
        order = decode_order(packed)
        if isinstance(order, Act):
            for column, values in zip(self.actions.loose, unpack(order.actions), strict=True):
                column[self.order.first : self.order.last] = values
            return self.safely(self._act)
        if isinstance(order, Reset):
            return self.safely(lambda: self._reset(order))
        if isinstance(order, Ask):
            return self.safely(lambda: self._ask(order))
        if isinstance(order, Assign):
            return self.safely(lambda: self._assign(order))
        self.close()
        return b""

    def safely(self, work: Callable[[], bytes]) -> bytes:
        try:
            return work()
        except BaseException as error:  # sys.exit and the like: an environment failed, not this process
            told = failure(error)
            number = self.now[0] if hasattr(self, "now") else self.order.first + len(self.envs)
            return encode(Failure(number, told.error, told.message, told.where))

    def _act(self) -> bytes:
        actions = self.actions.rows(self.order.first, self.order.last)
        return self._done(self.step(self, iterate(self.batched, actions)))

    def _reset(self, order: Reset) -> bytes:
        options, infos = unpack(order.options), []
        for i, number in enumerate(self.numbers):
            if order.mask is not None and not order.mask[i]:
                continue
            self.now[0] = number
            observation, info = self.envs[i].reset(seed=order.seeds[i], options=options)
            self.put(number, observation)
            self.over[number] = False
            self.terminated[number] = self.truncated[number] = False
            infos.append((number, _checked(info)))
        return self._done(infos)

    def _done(self, infos: list[tuple[int, dict[str, Any]]]) -> bytes:
        loose = [column[self.order.first : self.order.last] for column in self.observations.loose]
        if not loose and not any(info for _, info in infos):
            return b""
        return encode(Done(pack(infos), pack(loose)))

    def _ask(self, order: Ask) -> bytes:
        args, kwargs = unpack(order.arguments)
        values = []
        for number, env in zip(self.numbers, self.envs, strict=True):
            self.now[0] = number
            found = env.get_wrapper_attr(order.name)
            values.append(found(*args, **kwargs) if callable(found) else found)
        return encode(Values(pack(values)))

    def _assign(self, order: Assign) -> bytes:
        for number, env, value in zip(self.numbers, self.envs, unpack(order.values), strict=True):
            self.now[0] = number
            env.set_wrapper_attr(order.name, value)
        return b""

    def close(self) -> None:
        self.closed = True
        while self.envs:
            with suppress(BaseException):
                self.envs.pop().close()


_Infos = list[tuple[int, dict[str, Any]]]


def _next_step(worker: _Worker, actions: Iterator[Any]) -> _Infos:
    """An episode that is over is begun anew by the next step, whose action nobody sees."""
    infos: _Infos = []
    put, over, now = worker.put, worker.over, worker.now
    rewards, ends, cuts = worker.rewards, worker.terminated, worker.truncated
    for number, env, action in zip(worker.numbers, worker.envs, actions, strict=True):
        now[0] = number
        if over[number]:
            observation, info = env.reset()
            rewards[number], ends[number], cuts[number] = 0.0, False, False
        else:
            observation, rewards[number], ends[number], cuts[number], info = env.step(action)
        put(number, observation)
        over[number] = ends[number] or cuts[number]
        if info:
            infos.append((number, _checked(info)))
    return infos


def _same_step(worker: _Worker, actions: Iterator[Any]) -> _Infos:
    """The step that ends an episode begins the next one, too."""
    infos: _Infos = []
    put, now = worker.put, worker.now
    rewards, ends, cuts = worker.rewards, worker.terminated, worker.truncated
    for number, env, action in zip(worker.numbers, worker.envs, actions, strict=True):
        now[0] = number
        observation, rewards[number], ends[number], cuts[number], info = env.step(action)
        if ends[number] or cuts[number]:
            infos.append((number, {"final_obs": observation, "final_info": _checked(info)}))
            observation, info = env.reset()
        put(number, observation)
        if info:
            infos.append((number, _checked(info)))
    return infos


def _disabled(worker: _Worker, actions: Iterator[Any]) -> _Infos:
    """Whoever uses the vector begins episodes anew."""
    infos: _Infos = []
    put, over, now = worker.put, worker.over, worker.now
    rewards, ends, cuts = worker.rewards, worker.terminated, worker.truncated
    for number, env, action in zip(worker.numbers, worker.envs, actions, strict=True):
        now[0] = number
        if over[number]:
            raise EnvError("its episode is over; reset it by options={'reset_mask': ...}")
        observation, rewards[number], ends[number], cuts[number], info = env.step(action)
        put(number, observation)
        over[number] = ends[number] or cuts[number]
        if info:
            infos.append((number, _checked(info)))
    return infos


_STEPS = {
    AutoresetMode.NEXT_STEP: _next_step,
    AutoresetMode.SAME_STEP: _same_step,
    AutoresetMode.DISABLED: _disabled,
}


def _sendable(metadata: dict[str, Any]) -> dict[str, Any]:
    """What messages can carry of it."""
    kept = {}
    for key, value in metadata.items():
        with suppress(EnvError):
            pack(value)
            kept[key] = value
    return kept


def _items(array: Array) -> Any:
    """Its items, to be set one by one: in half the time that the array itself takes."""
    return array.data


def _checked(info: Any) -> dict[str, Any]:
    if not isinstance(info, dict):
        raise EnvError(f"an info is a {type(info).__name__}; make it a dict")
    return info
