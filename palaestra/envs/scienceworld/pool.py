"""Simulators that are lent: those given back are lent again, and no virtual machine has more than it can hold."""

from __future__ import annotations

import threading

from palaestra.envs.java.machine import Jvm, Machine
from palaestra.envs.scienceworld.simulator import PROGRAM, Simulator

PER_JVM = 16
"""Simulators in one virtual machine. One takes some 20 MB for its classes and some for its episode."""


class Pool:
    """As many virtual machines as the simulators that are lent need. An idle one ends, but for the first."""

    def __init__(self, per_jvm: int = PER_JVM) -> None:
        self._per_jvm = per_jvm
        self._lock = threading.Lock()
        self._machines: list[Machine] = []
        self._idle: list[Simulator] = []
        self._places: dict[int, int] = {}
        """Process id of a virtual machine -> simulators that were made in it."""

    def borrow(self) -> Simulator:
        """A simulator that nobody else uses until it is given back.

        Raises:
            EnvError: there is no Java, or it does not start.
            MissingExtraError: scienceworld is not installed.
        """
        with self._lock:
            self._idle = [simulator for simulator in self._idle if simulator.jvm.alive]
            if self._idle:
                return self._idle.pop()
            jvm = self._with_room()
            self._places[jvm.process.pid] = self._places.get(jvm.process.pid, 0) + 1
        try:
            return Simulator(jvm)
        except BaseException:
            with self._lock:
                self._places[jvm.process.pid] -= 1
            raise

    def give_back(self, simulator: Simulator) -> None:
        """Let others use a simulator that was borrowed."""
        if not simulator.jvm.alive:
            return
        with self._lock:
            self._idle.append(simulator)
            mine = [idle for idle in self._idle if idle.jvm is simulator.jvm]
            ended = self._machine_of(simulator.jvm) if len(mine) == self._places[simulator.jvm.process.pid] else None
            if ended is None or ended is self._machines[0]:
                return
            self._idle = [idle for idle in self._idle if idle.jvm is not simulator.jvm]
            self._machines.remove(ended)
        ended.stop()

    def stop(self) -> None:
        """End every virtual machine; what was lent cannot be used any more."""
        with self._lock:
            ended, self._machines, self._idle, self._places = self._machines, [], [], {}
        for machine in ended:
            machine.stop()

    def pids(self) -> list[int]:
        """Process ids of the virtual machines that run."""
        with self._lock:
            return [machine.running().process.pid for machine in self._machines if machine.alive]

    def _with_room(self) -> Jvm:
        self._machines = [machine for machine in self._machines if machine.alive]
        for machine in self._machines:
            jvm = machine.running()
            if self._places.get(jvm.process.pid, 0) < self._per_jvm:
                return jvm
        machine = Machine(PROGRAM)
        jvm = machine.running()
        self._machines.append(machine)
        self._places[jvm.process.pid] = 0
        return jvm

    def _machine_of(self, jvm: Jvm) -> Machine | None:
        return next((machine for machine in self._machines if machine.alive and machine.running() is jvm), None)


POOL = Pool()
"""This process's."""
