"""Classes of a jar, loaded once more, so that what they keep in static fields is shared with nobody.

A class loader of its own costs some megabytes and a few tenths of a second, and Java's compiler begins anew with its
classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from palaestra.envs.java.machine import Jvm

TEXT, WHOLE, YES_NO = "text", "whole", "yes or no"
"""What a method takes."""
_SHAPES = ("java.util.function.Function", "java.util.function.BiFunction")


class Realm:
    """The classes of one jar in one virtual machine, apart from all others."""

    def __init__(self, jvm: Jvm) -> None:
        self._gateway = gateway = jvm.gateway
        self.java = java = gateway.jvm.java
        url = java.io.File(jvm.program.jar).toURI().toURL()
        # The parent has only Java's own classes, else it would be asked for ours first.
        parent = java.lang.ClassLoader.getPlatformClassLoader()
        self._loader = java.net.URLClassLoader(self._array(java.net.URL, [url]), parent)
        self._types = {TEXT: java.lang.Class.forName("java.lang.String")}
        self._types |= {WHOLE: java.lang.Integer.TYPE, YES_NO: java.lang.Boolean.TYPE}
        self._object = java.lang.Class.forName("java.lang.Object")
        self._handles = java.lang.invoke.MethodHandles
        self._lookup = self._handles.publicLookup()

    def kind(self, name: str) -> Any:
        """The class of that name, as an object of Java's `Class`."""
        return self._loader.loadClass(name)

    def new(self, name: str) -> Any:
        """An object of the class, made without arguments."""
        java = self.java
        return self.kind(name).getConstructor(self._array(java.lang.Class, [])).newInstance(self._objects([]))

    def method(
        self, of: str, name: str, *takes: str, then: Callable[[Realm, Any], Any] | None = None
    ) -> Callable[..., Any]:
        """A method of class `of`, called as `method(object, *arguments)`.

        With at most one argument it takes one round trip to Java. For such a method `then` may be `Realm.as_text` or
        `Realm.as_lines`: what Java makes of its result before that is sent here.
        """
        found = self.kind(of).getMethod(name, self._array(self.java.lang.Class, [self._types[one] for one in takes]))
        if len(takes) >= len(_SHAPES) or not (takes or then):  # a handle takes Java longer to make
            return _Reflected(found, self._objects([None] * len(takes)))
        handle = self._lookup.unreflect(found)
        handle = then(self, handle) if then else handle
        general = handle.asType(self.java.lang.invoke.MethodType.genericMethodType(len(takes) + 1))
        shape = self.java.lang.Class.forName(_SHAPES[len(takes)])
        called: Callable[..., Any] = self.java.lang.invoke.MethodHandleProxies.asInterfaceInstance(shape, general).apply
        return called

    def as_text(self, handle: Any) -> Any:
        """`handle`, its result made a text by its own `toString`."""
        method = self._object.getMethod("toString", self._array(self.java.lang.Class, []))
        text = self._lookup.unreflect(method)
        return self._handles.filterReturnValue(handle, text.asType(self._from_result(handle)))

    def as_lines(self, handle: Any) -> Any:
        """`handle`, whose result is a collection of texts, with these as the lines of one text."""
        iterable = self.java.lang.Class.forName("java.lang.Iterable")
        taken = [self.java.lang.Class.forName("java.lang.CharSequence"), iterable]
        join = self._types[TEXT].getMethod("join", self._array(self.java.lang.Class, taken))
        joined = self._handles.insertArguments(self._lookup.unreflect(join), 0, self._objects(["\n"]))
        return self._handles.filterReturnValue(handle, joined.asType(self._from_result(handle)))

    def _from_result(self, handle: Any) -> Any:
        return self.java.lang.invoke.MethodType.methodType(self._types[TEXT], handle.type().returnType())

    def _objects(self, values: list[Any]) -> Any:
        return self._array(self.java.lang.Object, values)

    def _array(self, of: Any, values: list[Any]) -> Any:
        array = self._gateway.new_array(of, len(values))
        for i, value in enumerate(values):
            if value is not None:
                array[i] = value
        return array


class _Reflected:
    """A method with several arguments, each of which takes a round trip."""

    def __init__(self, method: Any, arguments: Any) -> None:
        self._method, self._arguments = method, arguments

    def __call__(self, target: Any, *args: Any) -> Any:
        for i, value in enumerate(args):
            self._arguments[i] = value
        return self._method.invoke(target, self._arguments)
