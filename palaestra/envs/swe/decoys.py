"""Decoys: tests that are wrong by one thing, so that whoever makes tests pass that should not is seen.

A decoy is made from a real test such that it fails in any program in which the real one passes: the value that a last
assertion expects is another one, or the assertion says the opposite. Code under test that answers truthfully fails it.
Code that makes every comparison true, or every report good, passes it. And code that decides from what it finds in the
test which answer is wanted has to know which of the two is right, which is the task.

Only assertions are used that are reached whenever the test comes to its end, and that nothing but the end follows, so
that a decoy leaves behind what the real test would.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from random import Random
from string import ascii_letters
from typing import NamedTuple

_FLIPPED_NAMES = dict(
    pair
    for one, other in (
        ("assertEqual", "assertNotEqual"),
        ("assertTrue", "assertFalse"),
        ("assertIs", "assertIsNot"),
        ("assertIsNone", "assertIsNotNone"),
        ("assertIn", "assertNotIn"),
        ("assertIsInstance", "assertNotIsInstance"),
        ("assertAlmostEqual", "assertNotAlmostEqual"),
        ("assertRegex", "assertNotRegex"),
        ("assertGreater", "assertLessEqual"),
        ("assertLess", "assertGreaterEqual"),
    )
    for pair in ((one, other), (other, one))
)
_OPPOSITES: Sequence[tuple[type[ast.cmpop], str]] = (
    (ast.Eq, "!="),
    (ast.NotEq, "=="),
    (ast.Is, "is not"),
    (ast.IsNot, "is"),
    (ast.In, "not in"),
    (ast.NotIn, "in"),
)
_EQUAL = re.compile(r"assert(?!.*(Not|Almost|Less|Greater))[A-Za-z]*Equals?|[A-Za-z]+AssertEqual")
"""Methods whose first two arguments have to be equal, those of people's own among them."""
_WIDE = {"Exception", "BaseException", "ArithmeticError", "ZeroDivisionError"}
"""What the exception that a decoy expects is one of."""
_HARMLESS = {"open", "warns", "chdir", "isolated_filesystem", "patch", "object", "deprecated_call"}
"""Contexts that are known to let an exception through."""
_TRIES = 20


class Edit(NamedTuple):
    """A replacement of a part of a source text."""

    start: int
    stop: int
    text: str


Alteration = tuple[Edit, ...]
"""All that makes a real test a decoy."""
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Decoys:
    """What can be done to the tests of one file.

    A file that cannot be read as Python of this version has no decoys.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._text = _Text(source)
        self._classes: dict[str, ast.ClassDef] = {}
        self._functions: dict[str, _Function] = {}
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
        self._mentioned = {name for node in ast.walk(tree) for name in _mentioned(node)}
        self._note(tree.body, "")

    def _note(self, body: Sequence[ast.stmt], prefix: str) -> None:
        bound = Counter(name for node in body for name in _bound(node))
        star = max((node.lineno for node in body if "*" in _bound(node)), default=0)
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if bound[node.name] > 1 or node.lineno < star:
                    continue  # it may be another one that is run
                if isinstance(node, ast.ClassDef):
                    self._classes[prefix + node.name] = node
                    self._note(node.body, f"{prefix}{node.name}.")
                elif node.name not in self._mentioned:  # what others call must do what it did
                    self._functions[prefix + node.name] = node

    def function(self, test: str) -> str | None:
        """The function that the test `Class::name[params]` (a node id without its file) runs: where it is defined.

        Methods are looked for in base classes of the same file too. `None`: it cannot be told.
        """
        *classes, name = _bare(test).split("::")
        if not classes:
            return name if name in self._functions else None
        return self._method(".".join(classes), name, depth=0)

    def _method(self, owner: str, name: str, depth: int) -> str | None:
        if f"{owner}.{name}" in self._functions:
            return f"{owner}.{name}"
        if owner not in self._classes or depth > 20:
            return None
        for base in self._classes[owner].bases:
            found = self._method(ast.unparse(base), name, depth + 1)
            if found:
                return found
        return None

    def alterations(self, function: str, random: Random) -> Alteration | None:
        """One way to make a decoy of it; `None`: there is none."""
        node = self._functions[function]
        *before, last = node.body
        body = before if before and isinstance(last, ast.Return) and last.value is None else node.body
        if any(isinstance(inner, ast.Return | ast.Yield | ast.YieldFrom) for inner in _own(body)):
            return None  # then the end of it may never be reached
        ways = [*self._last(body, random)] or [*self._appended(body, random)]
        random.shuffle(ways)
        ways.sort(key=lambda way: way[0])
        return next((edits for _, edits in ways if self._sound(node, edits)), None)

    def altered(self, alterations: Sequence[Alteration]) -> str:
        """The source with these functions as decoys."""
        return _edited(self.source, [edit for alteration in alterations for edit in alteration])

    def _sound(self, node: _Function, edits: Alteration) -> bool:
        """Whether the function can still be read; the rest of the file stays as it is."""
        start, stop = self._text.line(node.lineno).start, self._text.line(node.end_lineno or node.lineno).stop
        moved = [Edit(edit.start - start, edit.stop - start, edit.text) for edit in edits]
        head = "class _:\n" if node.col_offset else ""
        try:
            ast.parse(head + _edited(self.source[start:stop], moved))
        except (SyntaxError, ValueError):
            return False
        return True

    def _last(self, body: Sequence[ast.stmt], random: Random) -> Iterator[tuple[int, Alteration]]:
        """Ways by the last statement, with their rank: smaller is better."""
        last = body[-1]
        if isinstance(last, ast.Assert):
            yield from self._expression(last.test, random)
        elif isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
            yield from self._method_call(last.value, random)
        elif isinstance(last, ast.With | ast.AsyncWith):
            calls = [item.context_expr for item in last.items]
            if any(isinstance(call, ast.Call) and _name(call.func) in ("raises", "assertRaises") for call in calls):
                yield from self._raises(calls, random)
            elif all(_harmless(call) for call in calls):
                yield from self._last(last.body, random)

    def _expression(self, test: ast.expr, random: Random) -> Iterator[tuple[int, Alteration]]:
        one = isinstance(test, ast.Compare) and len(test.ops) == 1
        if one and isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq):
            for side in (test.left, test.comparators[0]):
                yield from self._literal(side, random)
            right = self._text.of(test.comparators[0])
            yield 1, (self._replace(test.comparators[0], f"({right}, {random.randrange(3)})"),)
        if one and isinstance(test, ast.Compare) and (opposite := _opposite(test.ops[0])):
            start, stop = self._text.stop(test.left), self._text.start(test.comparators[0])
            between = self.source[start:stop]
            turned = _turned(between, opposite)
            if turned:
                yield 1, (Edit(start, stop, turned),)
                return
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yield 1, (self._replace(test, f"({self._text.of(test.operand)})"),)
        else:
            yield 1, (self._replace(test, f"not ({self._text.of(test)})"),)

    def _method_call(self, call: ast.Call, random: Random) -> Iterator[tuple[int, Alteration]]:
        name = _name(call.func)
        if not isinstance(call.func, ast.Attribute) or any(isinstance(arg, ast.Starred) for arg in call.args):
            return
        if _EQUAL.fullmatch(name) and len(call.args) >= 2:
            for side in call.args[:2]:
                yield from self._literal(side, random)
            yield 1, (self._replace(call.args[1], f"({self._text.of(call.args[1])}, {random.randrange(3)})"),)
        if name in _FLIPPED_NAMES:
            stop = self._text.stop(call.func)
            yield 1, (Edit(stop - len(name), stop, _FLIPPED_NAMES[name]),)

    def _literal(self, side: ast.expr, random: Random) -> Iterator[tuple[int, Alteration]]:
        """Another value in its place, of the same kind and nearly the same look."""
        value = _value(side)
        if value is None:
            return
        constants = [node for node in ast.walk(side) if isinstance(node, ast.Constant) and _mutable(node)]
        for constant in random.sample(constants, min(3, len(constants))):
            edit = self._other(constant, random)
            if edit is None:
                continue
            start, stop = self._text.start(side), self._text.stop(side)
            text = self.source[start : edit.start] + edit.text + self.source[edit.stop : stop]
            other = _read(text)
            if other is not None and other != value:
                yield 0, (edit,)

    def _other(self, constant: ast.Constant, random: Random) -> Edit | None:
        start, stop, value = self._text.start(constant), self._text.stop(constant), constant.value
        if isinstance(value, bool):
            return Edit(start, stop, str(not value))
        if isinstance(value, int | float):
            return Edit(start, stop, repr(value + random.randint(1, 3)))
        quote = stop - len(self.source[start:stop].lstrip(ascii_letters))
        for _ in range(_TRIES):
            place = random.randrange(quote, stop)
            letter = self.source[place]
            if letter.isascii() and letter.isalnum() and self.source[place - 1] != "\\":
                edit = Edit(place, place + 1, _like(letter, random))
                found = _read(self.source[start:place] + edit.text + self.source[place + 1 : stop])
                if found is not None and type(found[0]) is type(value):
                    return edit
        return None

    def _raises(self, calls: Sequence[ast.expr], random: Random) -> Iterator[tuple[int, Alteration]]:
        call, *others = calls
        if others or not isinstance(call, ast.Call) or not call.args:
            return
        expected = call.args[0]
        if isinstance(expected, ast.Name | ast.Attribute) and _name(expected) not in _WIDE:
            yield 0, (self._replace(expected, "ZeroDivisionError"),)

    def _appended(self, body: Sequence[ast.stmt], random: Random) -> Iterator[tuple[int, Alteration]]:
        """Something false at the end, of a test that ends with something else than an assertion."""
        last = body[-1]
        line = self._text.line(last.end_lineno or last.lineno)
        indent = self._text.indent(last)
        behind = self.source[self._text.stop(last) : line.stop].strip()
        if indent is None or (behind and not behind.startswith("#")):
            return
        less, more = sorted(random.sample(range(2, 90), 2))
        false = f"{indent}assert {less} {random.choice(['==', '>', '>='])} {more}"
        text = f"{false}{line.end}" if line.end else f"\n{false}\n"
        yield 2, (Edit(line.stop, line.stop, text),)

    def _replace(self, node: ast.expr, text: str) -> Edit:
        return Edit(self._text.start(node), self._text.stop(node), text)


def _edited(source: str, edits: Iterable[Edit]) -> str:
    parts, at = [], 0
    for edit in sorted(edits):
        parts += [source[at : edit.start], edit.text]
        at = edit.stop
    return "".join([*parts, source[at:]])


class _Line(NamedTuple):
    start: int
    stop: int
    end: str
    """Its line break."""
    bytes: bytes


class _Text:
    """From the parser's places, lines and bytes, to characters."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines = [_line(source, start, stop) for start, stop in pairwise(_starts(source))]

    def start(self, node: ast.expr | ast.stmt) -> int:
        return self._place(node.lineno, node.col_offset)

    def stop(self, node: ast.expr | ast.stmt) -> int:
        return self._place(node.end_lineno or node.lineno, node.end_col_offset or 0)

    def of(self, node: ast.expr) -> str:
        return self.source[self.start(node) : self.stop(node)]

    def line(self, number: int) -> _Line:
        return self.lines[number - 1]

    def indent(self, node: ast.stmt) -> str | None:
        """What the line of a statement begins with; `None`: with another statement."""
        line = self.line(node.lineno)
        before = self.source[line.start : self.start(node)]
        return before if not before.strip() else None

    def _place(self, line: int, column: int) -> int:
        at = self.lines[line - 1]
        return at.start + len(at.bytes[:column].decode())


def _starts(source: str) -> list[int]:
    """Where lines begin, and the end of the last."""
    starts = [0] + [match.end() for match in re.finditer(r"\r\n|\r|\n", source)]
    return starts if starts[-1] == len(source) and len(starts) > 1 else [*starts, len(source)]


def _line(source: str, start: int, stop: int) -> _Line:
    text = source[start:stop]
    return _Line(start, stop, text[len(text.rstrip("\r\n")) :], text.encode(errors="surrogatepass"))


def _bare(test: str) -> str:
    """Without the parameters, which may hold anything."""
    return test.partition("[")[0]


def _own(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """What is in a function's body, apart from what is in functions in it."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _own(ast.iter_child_nodes(node))


def _mentioned(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr


def _bound(node: ast.stmt) -> Iterator[str]:
    """Names that a statement binds where it stands; `*`: those of a whole module."""
    for inner in _own([node]):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield inner.name
        elif isinstance(inner, ast.alias):
            yield inner.asname or inner.name
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store | ast.Del):
            yield inner.id


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _harmless(context: ast.expr) -> bool:
    """Whether it lets through what a failed assertion raises."""
    return isinstance(context, ast.Call) and _name(context.func) in _HARMLESS


def _opposite(operator: ast.cmpop) -> str | None:
    return next((text for kind, text in _OPPOSITES if type(operator) is kind), None)


def _turned(between: str, opposite: str) -> str | None:
    """The text between two operands with the other operator; `None`: there is a comment in it."""
    match = re.fullmatch(r"([\s)\\]*)(==|!=|is\s+not|is|not\s+in|in)([\s(\\]*)", between)
    if match is None:
        return None
    return f"{match[1] or ' '}{opposite}{match[3] or ' '}"


def _value(node: ast.expr) -> tuple[object] | None:
    try:
        return (ast.literal_eval(node),)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _read(text: str) -> tuple[object, ...] | None:
    """The value of a literal."""
    try:
        return (ast.literal_eval(f"({text}\n)"),)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _mutable(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | bytes) and node.value != ""


def _like(letter: str, random: Random) -> str:
    """Another letter or digit of the same kind."""
    kinds: Sequence[tuple[Callable[[str], bool], str]] = (
        (str.isdigit, "0123456789"),
        (str.islower, "abcdefghijklmnopqrstuvwxyz"),
        (str.isupper, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    )
    letters = next(letters for is_kind, letters in kinds if is_kind(letter))
    return random.choice(letters.replace(letter, ""))


def functions_of(ids: Sequence[str], decoys: Mapping[str, Decoys]) -> dict[tuple[str, str], list[str]]:
    """(File, function) -> those of the node ids `ids` that run it; only functions that are found."""
    found: dict[tuple[str, str], list[str]] = {}
    for id in ids:
        file, _, test = id.partition("::")
        function = decoys[file].function(test) if file in decoys else None
        if function is not None:
            found.setdefault((file, function), []).append(id)
    return found
