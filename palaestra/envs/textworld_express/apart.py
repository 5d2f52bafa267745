"""A simulator that shares nothing with others in its virtual machine, by classes of its own.

Some games keep what they are made of in static fields: the objects of `sorting` are the same ones in every simulator,
and lie where the last game to begin has put them. A class loader of its own gives a simulator its own static fields,
for 9 MB of memory and a few tenths of a second. Its methods can only be called by reflection, which takes longer.
"""

from __future__ import annotations

from typing import Any

INTERFACE = "textworldexpress.runtime.PythonInterface"
_TEXT, _WHOLE, _YES_NO = "text", "whole", "yes or no"
_METHODS: dict[str, tuple[str, ...]] = {
    "load": (_TEXT, _TEXT),
    "generateNewGameJSON": (_WHOLE, _TEXT, _YES_NO),
    "stepJSON": (_TEXT,),
    "errorStr": (),
    "getTaskDescription": (),
    "getGoldActionSequence": (),
}
"""Method -> what it takes."""


class Apart:
    """The package's interface, as far as it is used here, under the same names."""

    def __init__(self, gateway: Any, jar: str) -> None:
        """Load the classes of `jar` once more and make a simulator of them."""
        java = gateway.jvm.java
        types = {_TEXT: java.lang.Class.forName("java.lang.String")}
        types |= {_WHOLE: java.lang.Integer.TYPE, _YES_NO: java.lang.Boolean.TYPE}
        url = java.io.File(jar).toURI().toURL()
        # The parent has only Java's own classes, else it would be asked for ours first.
        parent = java.lang.ClassLoader.getPlatformClassLoader()
        loader = java.net.URLClassLoader(_array(gateway, java.net.URL, [url]), parent)
        kind = loader.loadClass(INTERFACE)
        made = kind.getConstructor(_array(gateway, java.lang.Class, [])).newInstance(
            _array(gateway, java.lang.Object, [])
        )
        for name, taken in _METHODS.items():
            method = kind.getMethod(name, _array(gateway, java.lang.Class, [types[one] for one in taken]))
            setattr(self, name, _Method(made, method, _array(gateway, java.lang.Object, [None] * len(taken))))


class _Method:
    def __init__(self, target: Any, method: Any, arguments: Any) -> None:
        self._target, self._method, self._arguments = target, method, arguments

    def __call__(self, *args: Any) -> Any:
        for i, value in enumerate(args):
            self._arguments[i] = value
        return self._method.invoke(self._target, self._arguments)


def _array(gateway: Any, of: Any, values: list[Any]) -> Any:
    array = gateway.new_array(of, len(values))
    for i, value in enumerate(values):
        if value is not None:
            array[i] = value
    return array
