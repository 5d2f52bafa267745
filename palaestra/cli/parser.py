"""Argument parsing whose errors are one line and name what was probably meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from palaestra.errors import PalaestraError, nearest


class UsageError(PalaestraError):
    """A command line that cannot be understood."""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `UsageError` where argparse prints its usage and exits."""

    def __init__(self, prog: str, summary: str, examples: str) -> None:
        super().__init__(
            prog=prog,
            description=summary,
            epilog=f"examples:\n{examples}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(f"{message}; see {self.prog} --help")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse `argv`, in which options may stand between positional arguments.

        Raises:
            UsageError: an argument is unknown (the message has the nearest option), missing or malformed.
        """
        args, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}{self._hint(unknown[0])}")
        return args

    def _hint(self, argument: str) -> str:
        options = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        close = nearest(re.split("=", argument)[0], options)
        return f"; did you mean {close[0]}?" if close else ""

    def accept_imports(self) -> None:
        """Add `--import`, for environments and algorithms that are not installed as a package."""
        self.add_argument(
            "--import",
            dest="imports",
            action="append",
            default=[],
            metavar="MODULE",
            help="module or file.py that registers environments or algorithms, imported first",
        )


def non_negative(text: str) -> int:
    """An argparse type: a whole number, 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive(text: str) -> int:
    """An argparse type: a whole number, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def temperature(text: str) -> float:
    """An argparse type: a finite number, 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no temperature: give a number, 0 or more")
    return value


def share(text: str) -> float:
    """An argparse type: a number above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def seconds(text: str) -> float:
    """An argparse type: a positive number of seconds."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return value
