"""The entry point: picks the command, runs it, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import TYPE_CHECKING

from palaestra.errors import PalaestraError, UnknownNameError
from palaestra.imports import import_module_or_file
from palaestra.interrupts import interrupting_after_imports

if TYPE_CHECKING:
    from palaestra.cli.parser import Parser

COMMANDS = {
    "demo": "train, evaluate and report on household tasks: the main job in one command",
    "train": "train an agent by a recipe",
    "eval": "run an agent on a task suite and report success with its interval",
    "play": "play an episode yourself, in the terminal",
    "report": "write the HTML report of a run",
    "replay": "play stored episodes again: identical, or the first step that differs",
    "check": "check environments against the contract",
    "audit": "let attack agents try to be paid for nothing",
    "serve": "serve environments to programs on this or other machines",
    "algorithms": "list the algorithms and plug-ins: source, requirements, defaults",
    "envs": "list the task suites, environments, models and recipes at hand",
    "interpreters": "list or delete the interpreters that were built for environments",
    "sandboxes ps": "list what sandboxes take on this machine, and who holds it",
    "sandboxes serve": "serve sandboxes to programs on this or other machines",
    "sandboxes reap": "remove what sandboxes left behind whose process is gone",
    "swe fetch": "download what the software-engineering tasks need, before going offline",
    "swe verify": "run the tests of software-engineering tasks untouched and with the gold patch",
    "swe build": "make software-engineering tasks from packages' release histories",
}
"""One line each; the module `palaestra.cli.NAME` holds `EXAMPLES`, `configure` and `run`. That of a command of two
words, `GROUP NAME`, is `palaestra.cli.GROUP.NAME`."""

OK, FAILED, ERROR, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (that of the process if `None`).

    Returns:
        0; 1 where a check failed; 2 after an error that was printed as one line; 130 after Ctrl-C, 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    signals: list[int] = []
    try:
        with _terminable(signals), _short_warnings(), interrupting_after_imports():
            return _dispatch(arguments)
    except PalaestraError as error:
        return _complain(str(error), ERROR)
    except KeyboardInterrupt as stop:
        hint = f"; {stop}" if str(stop) else ""
        return _complain(f"interrupted{hint}", TERMINATED if signals else INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing may write to it again, not even the flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _complain(f"{error.strerror or error}{where}", ERROR)


@contextmanager
def _terminable(signals: list[int]) -> Iterator[None]:
    """Let SIGTERM, which container engines and schedulers send, do what Ctrl-C does, and be noted in `signals`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        on_ctrl_c = signal.getsignal(signal.SIGINT)  # asyncio's, while a loop runs: it cancels rather than raises
        if not callable(on_ctrl_c):  # Ctrl-C is ignored, as in what a shell started in the background
            raise KeyboardInterrupt
        on_ctrl_c(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Show a warning as one line, without the place in the code."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"palaestra: warning: {' '.join(str(message).split())}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return OK if arguments else ERROR
    if arguments[0] in ("-V", "--version"):
        from palaestra import __version__

        print(f"palaestra {__version__}")
        return OK
    name, rest = split_command(arguments)
    if rest in ([], ["-h"], ["--help"]) and any(command.startswith(f"{name} ") for command in COMMANDS):
        print(_help(f"{name} "))
        return OK if rest else ERROR
    return run_command(name, rest)


def split_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command that a command line begins with, of one word or two, and its arguments."""
    group = any(command.startswith(f"{arguments[0]} ") for command in COMMANDS)
    words = 2 if group and len(arguments) > 1 and not arguments[1].startswith("-") else 1
    return " ".join(arguments[:words]), list(arguments[words:])


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run command `name` and return its exit code.

    Raises:
        UnknownNameError: there is no such command; the message has the nearest.
        UsageError: the arguments do not fit.
    """
    command, parser = load_command(name)
    try:
        args = parser.parse(arguments)
    except SystemExit as stop:  # argparse leaves this way after --help
        return OK if stop.code is None else int(stop.code)
    for module in getattr(args, "imports", ()):
        import_module_or_file(module)
    code: int = command.run(args)
    return code


def load_command(name: str) -> tuple[ModuleType, Parser]:
    """The module of command `name`, and the parser of its arguments.

    Raises:
        UnknownNameError: there is no such command; the message has the nearest.
    """
    from palaestra.cli.parser import Parser

    if name not in COMMANDS:
        raise UnknownNameError("command", name, COMMANDS)
    command = importlib.import_module(f"palaestra.cli.{name.replace(' ', '.')}")
    parser = Parser(f"palaestra {name}", f"{command.__doc__}".strip(), command.EXAMPLES)
    command.configure(parser)
    return command, parser


def _help(group: str = "") -> str:
    listed = {name: summary for name, summary in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, listed))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in listed.items()]
    return "\n".join(
        [
            f"usage: palaestra {group}COMMAND ...",
            "",
            "Where language-model agents train.",
            "",
            "commands:",
            *lines,
            "",
            "palaestra COMMAND --help explains a command, with examples; palaestra --version prints the version.",
        ]
    )


def _complain(message: str, code: int) -> int:
    print(f"palaestra: {' '.join(message.split())}", file=sys.stderr)
    return code
