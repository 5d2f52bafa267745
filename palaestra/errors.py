"""Errors that a person reads: each names the cause and the mend in one line."""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class PalaestraError(Exception):
    """Base of every error that Palaestra raises on purpose. The command line prints it as one line."""


class UnknownNameError(PalaestraError):
    """A name that nothing is registered under; the message lists the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.nearest = kind, name, nearest(name, known)
        hint = f"; did you mean {' or '.join(map(repr, self.nearest))}?" if self.nearest else ""
        super().__init__(f"unknown {kind} {name!r}{hint}")


class MissingExtraError(PalaestraError, ImportError):
    """A dependency of an optional part is not installed; the message names the extra that brings it."""

    def __init__(self, module: str, extra: str) -> None:
        self.module, self.extra = module, extra
        super().__init__(f"{module} is not installed; run: pip install 'palaestra[{extra}]'")


class ConfigError(PalaestraError):
    """A recipe or an override that does not fit its schema."""


class DataError(PalaestraError):
    """A file that is corrupt, truncated or of another format or version."""


class EnvError(PalaestraError):
    """An environment broke its contract, or was used out of order."""


class DeadlineError(EnvError):
    """An environment or an agent took longer than it may."""


class WorkerError(EnvError):
    """Where the environment ran is gone: its process ended or was killed, or the connection broke."""


class SandboxError(EnvError):
    """A sandbox does not start, is closed, or is lost: it ended, was killed, or the connection to it broke."""


class SandboxDaemonError(SandboxError):
    """What runs the sandboxes cannot be reached, or refuses: absent, not permitted, restarted, its disk full."""


class SandboxImageError(SandboxError):
    """An image that does not exist, or lacks what a sandbox needs."""


class SandboxPathError(SandboxError):
    """A path in a sandbox, or beside it, that is not there or cannot be used so. The sandbox lives on."""


class ReplayError(EnvError):
    """Replaying the same actions gave another episode."""

    def __init__(self, message: str, *, step: int, expected: str = "", got: str = "") -> None:
        self.step, self.expected, self.got = step, expected, got
        super().__init__(message)


class EngineError(PalaestraError):
    """An inference engine cannot answer: its model failed, it is closed, or the request makes no sense."""


class CheckpointError(PalaestraError):
    """A checkpoint that cannot be loaded: of another model, incomplete, or damaged."""


class TrainingError(PalaestraError):
    """Training cannot go on, for example because the loss is not finite."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The up to `n` entries of `known` that are spelled most like `name`, best first; none far from the best."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=n, cutoff=0.5)
    likeness = [difflib.SequenceMatcher(None, each, name.lower()).ratio() for each in found]
    return [by_lower[each] for each, like in zip(found, likeness, strict=True) if like > likeness[0] - 0.3]


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtraError` naming the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name):
            raise
        raise MissingExtraError(module.partition(".")[0], extra) from error
