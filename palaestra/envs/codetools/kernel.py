"""The far side of the Python tool: runs cells one after the other in one namespace, like a notebook.

This file is also a program, handed to `python -c` in the sandbox: Python 3.8 or newer, the standard library, and little
of that, because each import makes an interpreter start later. A cell comes on a named pipe as a line with its number,
its processor seconds and its length, and then its bytes. What it prints goes to stdout between two marks, the
second of which says how it went.
"""

from __future__ import annotations

import os
import sys

_ONLY_AST = 0x400
_FRAMES, _LINES = 200, 24
"""Of a traceback: the innermost that are looked at; those of its text that are shown."""
_REPR = 100_000
"""Characters of a value that are shown, lest showing one be a flood."""
_SPARE, _PLENTY = 8 << 20, 32 << 20
"""Bytes, which are not touched and so take address space only."""
_SEEDED = ("random", "numpy.random")


class Kernel:
    """An interpreter that lives until it is killed."""

    def __init__(self, pipe: str, mark: str, memory: int) -> None:
        self._mark = mark
        self._pid = os.getpid()
        self._names = _fresh_main()
        self._seeded: set[str] = set()
        self._spare: bytearray | None = None
        _limit(memory)
        os.dup2(1, 2)  # one stream, so that lines keep their order
        os.mkfifo(pipe, 0o600)
        self._pipe = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)  # held for writing too: it never ends
        self._out = _high(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(os.devnull)  # noqa: SIM115  # for as long as we live
        sys.displayhook = _display
        self._tell("0", "r")

    def serve(self) -> None:
        """Run cells, one after the other, for ever."""
        while True:
            number, cpu, length = self._line().split()
            code = self._bytes(int(length))
            _streams(self._out)
            _limit_cpu(int(cpu))
            self._save()
            self._tell(number, "b")
            went = self._run(code, f"<cell {number}>")
            _flush()
            if os.getpid() != self._pid:
                os._exit(not went)  # a child that the code has forked, and that came back here
            _no_alarm()
            self._tell(number, "k" if went else "e")

    def _run(self, code: bytes, name: str) -> bool:
        try:
            self._seed(code)
            _execute(code.decode("utf-8", "replace"), name, self._names)
        except SystemExit as ending:
            return _exited(ending)
        except BaseException as error:
            self._spare = None
            _explain(error)
            return False
        return True

    def _save(self) -> None:
        """Put memory aside, of which there is plenty: what is done after code has used up all else takes some."""
        try:
            if self._spare is None and bytearray(_PLENTY):
                self._spare = bytearray(_SPARE)
        except MemoryError:
            self._spare = None

    def _seed(self, code: bytes) -> None:
        """Seed the generators that code may draw from, so that it prints the same whenever it is run again."""
        if b"random" not in code:
            return
        for name in _SEEDED:
            package = name.partition(".")[0]
            if name not in self._seeded and (package in sys.modules or package.encode() in code):
                self._seeded.add(name)
                try:
                    __import__(name)
                    sys.modules[name].seed(0)
                except Exception:
                    continue  # not installed, or something else of that name: the code will see

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self._pipe, 1)
        return line.decode()

    def _bytes(self, length: int) -> bytes:
        parts = []
        while length:
            parts.append(os.read(self._pipe, length))
            length -= len(parts[-1])
        return b"".join(parts)

    def _tell(self, number: str, what: str) -> None:
        os.write(self._out, b"\0%s %s %s\0" % (self._mark.encode(), number.encode(), what.encode()))


def _execute(code: str, name: str, names: dict[str, object]) -> None:
    """Run a cell; what its last expression comes to is displayed."""
    import _ast

    lines = code.splitlines(True)
    tree = compile(code, name, "exec", _ONLY_AST, True)
    _remember(name, lines)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
    exec(compile(tree, name, "exec", 0, True), names)
    if last is not None:
        exec(compile(_ast.Interactive(body=[last]), name, "single", 0, True), names)


_cells: dict[str, list[str]] = {}
"""The lines of cells that `linecache` does not know yet: it takes a while to import, and few need it."""


def _remember(name: str, lines: list[str]) -> None:
    """Let tracebacks and `inspect` show the lines of a cell."""
    _cells[name] = lines
    if "linecache" in sys.modules:
        _hand_over()


def _hand_over() -> None:
    import linecache

    while _cells:
        name, lines = _cells.popitem()
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)


def _display(value: object) -> None:
    if value is None:
        return
    text = repr(value)
    if len(text) > _REPR:
        left_out = len(text) - _REPR
        text = f"{text[: _REPR // 2]}\n[{left_out} characters left out]\n{text[-_REPR // 2 :]}"
    print(text)
    import builtins

    builtins._ = value  # type: ignore[attr-defined]  # as in an interactive interpreter


def _explain(error: BaseException) -> None:
    """Print a traceback without our own frames, and without the middle of a long one."""
    try:
        import traceback

        _hand_over()
        told = traceback.TracebackException.from_exception(error, limit=-_FRAMES)
        told.stack[:] = [frame for frame in told.stack if not _ours(frame.filename, frame.name)]
        lines = "".join(told.format()).splitlines(True)
        if len(lines) > _LINES:
            lines[_LINES // 2 : -_LINES // 2] = [f"  [{len(lines) - _LINES} lines left out]\n"]
        text = "".join(lines)
    except BaseException:  # an exception that cannot be shown, or no memory left to show it
        text = type(error).__name__ + "\n"
    error.__traceback__ = None  # frees what the frames held
    _write(text)


def _ours(file: str, name: str) -> bool:
    return file == _execute.__code__.co_filename and name in ("_run", "_execute", "_display")


def _exited(ending: SystemExit) -> bool:
    if ending.code in (None, 0):
        return True
    _write(f"SystemExit: {ending.code}\n")
    return False


def _write(text: str) -> None:
    _flush()
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(1, data) :]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            continue  # the code has closed or replaced it


def _streams(out: int) -> None:
    """Give a cell streams that work, whatever the one before has done to them (`exit()` closes stdin)."""
    if getattr(sys.stdin, "closed", True):
        sys.stdin = open(os.devnull)  # noqa: SIM115  # for as long as we live
    for number, name in ((1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(out, number)
        if getattr(getattr(sys, name, None), "closed", True):
            setattr(sys, name, _writer(number))


def _writer(number: int) -> object:
    return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _no_alarm() -> None:
    """Stop a timer that the code has set: it would go off in the midst of another cell, or of none."""
    if "signal" in sys.modules:
        import signal

        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit(memory: int) -> None:
    import resource

    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _limit_cpu(seconds: int) -> None:
    """Let the process live for so many seconds of processor time more; 0 for no limit."""
    if not seconds:
        return
    import resource

    used = sum(os.times()[:2])
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    most = int(used) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _high(number: int) -> int:
    """A copy of a descriptor where code that closes the low ones does not find it."""
    import fcntl

    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 50)


def _fresh_main() -> dict[str, object]:
    """The namespace of the cells, as a module of the name that programs have."""
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    main.__dict__["__builtins__"] = __builtins__
    return main.__dict__


def _begin() -> None:
    pipe, mark, memory = sys.argv[1:]
    sys.argv[:] = [""]
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    Kernel(pipe, mark, int(memory)).serve()


if __name__ == "__main__":
    _begin()
