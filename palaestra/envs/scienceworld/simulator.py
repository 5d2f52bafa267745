"""One episode in Java: typed turns, and errors where the package answers by texts.

The package keeps three things in static fields, of which there is one in a virtual machine: the random generator, the
next object's number, and which simplifications are in force. Simulators that share them change each other, and even
asking for the valid actions draws random numbers. So each simulator has classes of its own, and a list of valid actions
is made with another generator. What then still differs from run to run is the order of the package's hash sets, which
follows the addresses that Java gives its objects: heat flows in that order. `-XX:hashCode=2` makes it the order of
insertion. With all this the same commands give the same episode, in any simulator and beside any others.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from palaestra.envs.java.machine import Jvm, Program
from palaestra.envs.java.realm import TEXT, WHOLE, YES_NO, Realm
from palaestra.envs.scienceworld.tasks import Setting
from palaestra.errors import EnvError

PROGRAM = Program(
    name="ScienceWorld",
    module="scienceworld",
    extra="scienceworld",
    options=("-Xmx1g", "-XX:+UseSerialGC", "-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2"),
)
UNKNOWN = "No known action matches that input."
"""The package's own answer to what it does not know."""
LONGEST = 1000
"""Characters of a command that the package is asked to understand; its parser slows down with the length."""

_INTERFACE, _AGENT = "scienceworld.runtime.pythonapi.PythonInterface", "scienceworld.runtime.AgentInterface"
_ASIDE = frozenset(("help", "objects", "task"))
"""Commands that the outer of the package's two interfaces answers."""
_MEANINGLESS = (
    "Unknown action.  Type 'help' for a list of actions, and 'objects' for a list of possible object referents. "
)
"""What that interface says where the inner one has nothing to say."""
_REFUSED = ("No known action", "Unknown action", "ERROR:")
_PLACE = re.compile(r"\bcalled (?:the |a )?(.+?)\.")


class Turn(NamedTuple):
    """What the start or a command says."""

    text: str
    score: int
    """From 0 to 100, or -100 after a mistake that cannot be mended."""
    over: bool
    look: str
    """The place as it is now."""
    inventory: str

    @property
    def place(self) -> str:
        """Name of the room."""
        found = _PLACE.search(self.look)
        return found[1] if found else ""

    @property
    def refused(self) -> bool:
        """Whether the command was not understood."""
        return self.text.startswith(_REFUSED)

    @property
    def asks(self) -> bool:
        """Whether it is asked which of several things was meant; the answer is a number."""
        return self.text.startswith("Ambiguous request")


class Simulator:
    """One episode at a time, for one thread at a time. Others in the same virtual machine do not touch it."""

    def __init__(self, jvm: Jvm) -> None:
        self.jvm = jvm
        jvm.call(self._prepare)

    def _prepare(self) -> None:
        self._realm = realm = Realm(self.jvm)
        self._outer = realm.new(_INTERFACE)
        self._load = realm.method(_INTERFACE, "load", TEXT, WHOLE, TEXT, YES_NO)
        self._aside = realm.method(_INTERFACE, "step", TEXT)
        self._task = realm.method(_INTERFACE, "getTaskDescription")
        self._gold = realm.method(_INTERFACE, "getGoldActionSequence", then=Realm.as_lines)
        self._valid = realm.method(_INTERFACE, "getValidActionObjectCombinations", then=Realm.as_lines)
        self._agent = realm.method(_INTERFACE, "agentInterface")
        self._get = realm.method("scala.Option", "get")
        self._act = realm.method(_AGENT, "step", TEXT, then=Realm.as_text)
        self._look = realm.method(_AGENT, "freeActionLook")
        self._inventory = realm.method(_AGENT, "freeActionInventory")
        self._error = realm.method(_AGENT, "isInErrorState")
        self._random = realm.kind("scala.util.Random$").getField("MODULE$").get(None)
        self._generator = realm.kind("scala.util.Random").getDeclaredField("self")
        self._generator.setAccessible(True)
        self._own = self._generator.get(self._random)
        self._other = realm.java.util.Random()

    def begin(self, setting: Setting) -> Turn:
        """Begin an episode. Its first text is the task and the place."""
        call = self.jvm.call
        self._begin(setting, solved=False)
        look, inventory = call(self._look, self._inner), call(self._inventory, self._inner)
        return Turn(f"{call(self._task, self._outer)}\n\n{look}", 0, False, look, inventory)

    def solution(self, setting: Setting) -> tuple[str, ...]:
        """The package's commands that solve a task from its start, which takes up to some seconds."""
        self._begin(setting, solved=True)
        lines = self.jvm.call(self._gold, self._outer)
        return tuple(lines.split("\n")) if lines else ()

    def _begin(self, setting: Setting, solved: bool) -> None:
        refusal = self.jvm.call(self._load, self._outer, *setting, solved)
        if refusal:
            raise EnvError(f"ScienceWorld refuses: {refusal.strip()}")
        self._inner = self.jvm.call(self._get, self.jvm.call(self._agent, self._outer))

    def step(self, command: str, before: Turn) -> Turn:
        """Do a command; what is not understood is answered.

        Raises:
            EnvError: the package failed.
        """
        if len(command) > LONGEST:
            return before._replace(text=UNKNOWN)
        call = self.jvm.call
        if command.strip().lower() in _ASIDE:
            return before._replace(text=call(self._aside, self._outer, command))
        # The inner interface leaves out a history and a list of all names, which take longer than the step.
        text, score, over = call(self._act, self._inner, command)[1:-1].rsplit(",", 2)
        points = round(100 * float(score))
        if points < 0 and call(self._error, self._inner):
            raise EnvError(f"ScienceWorld failed: {(text.splitlines() or [''])[0]}")
        look, inventory = call(self._look, self._inner), call(self._inventory, self._inner)
        return Turn(text or _MEANINGLESS, points, over == "true" or points < 0, look, inventory)

    def admissible(self) -> list[str]:
        """The package's valid actions, sorted and each once; the episode goes on as if nobody had asked.

        Names of things that are alike are drawn at random; here the draws are the same for the same state.
        """
        call = self.jvm.call
        call(self._other.setSeed, 0)
        call(self._generator.set, self._random, self._other)
        try:
            return sorted(set(call(self._valid, self._outer).split("\n")))
        finally:
            call(self._generator.set, self._random, self._own)
