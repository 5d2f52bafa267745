"""A simulator that shares nothing with others in its virtual machine, by classes of its own.

Some games keep what they are made of in static fields: the objects of `sorting` are the same ones in every simulator,
and lie where the last game to begin has put them. A realm of its own gives a simulator its own static fields, for 9 MB
of memory and a few tenths of a second.
"""

from __future__ import annotations

from functools import partial

from palaestra.envs.java.machine import Jvm
from palaestra.envs.java.realm import TEXT, WHOLE, YES_NO, Realm

INTERFACE = "textworldexpress.runtime.PythonInterface"
_METHODS: dict[str, tuple[str, ...]] = {
    "load": (TEXT, TEXT),
    "generateNewGameJSON": (WHOLE, TEXT, YES_NO),
    "stepJSON": (TEXT,),
    "errorStr": (),
    "getTaskDescription": (),
    "getGoldActionSequence": (),
}
"""Method -> what it takes."""


class Apart:
    """The package's interface, as far as it is used here, under the same names."""

    def __init__(self, jvm: Jvm) -> None:
        """Load the classes once more and make a simulator of them."""
        realm = Realm(jvm)
        made = realm.new(INTERFACE)
        for name, takes in _METHODS.items():
            setattr(self, name, partial(realm.method(INTERFACE, name, *takes), made))
