"""The far side: a process that makes questions and judges answers, one request a line, until its input ends.

What an answer can do to it is bounded: it ends itself when a request has taken its share of processor time, which a
loaded machine does not change, and it cannot take more memory than `MEMORY`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import warnings
from typing import Any

import msgspec

from palaestra.errors import ConfigError, MissingExtraError, PalaestraError

MEMORY = 4 << 30
"""Bytes of address space."""


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request."""

    generator: str
    difficulty: int | None
    config: dict[str, Any]
    split: str = ""
    """Empty to have generator, difficulty and config looked at only."""
    index: int = 0
    answer: str | None = None
    """To be judged; `None` to get the question."""
    seconds: float = 60.0
    """Of processor time that the reply may take."""


class Reply(msgspec.Struct, frozen=True):
    """What came of it."""

    question: str = ""
    stored: str | None = None
    """An answer that is right."""
    reward: float = 0.0
    reason: str = ""
    """Why the reward is 0, where the answer could not be judged."""
    error: str = ""
    kind: str = ""
    """`config`, `missing` or `env`, of the error."""


def main() -> None:
    """Serve standard input and output. Whatever else prints, prints to nowhere."""
    sink = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    warnings.simplefilter("ignore")
    with contextlib.suppress(ValueError, OSError):  # a lower limit is there already
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError):  # told with the first request
        import reasoning_gym  # noqa: F401
    for line in sys.stdin.buffer:
        sink.write(msgspec.json.encode(_replied(line)) + b"\n")
        sink.flush()


def _replied(line: bytes) -> Reply:
    wanted = msgspec.json.decode(line, type=Wanted)
    # The signal's default is the end of the process, in whatever code it is; a handler would wait for Python's turn.
    signal.setitimer(signal.ITIMER_PROF, wanted.seconds)
    try:
        return _reply(wanted)
    except MissingExtraError:
        return Reply(error="reasoning_gym", kind="missing")
    except PalaestraError as error:
        return Reply(error=str(error), kind="config" if isinstance(error, ConfigError) else "env")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _reply(wanted: Wanted) -> Reply:
    from palaestra.envs.reasoning import questions

    setting = (wanted.generator, wanted.difficulty, wanted.config)
    if not wanted.split:
        questions.validate(*setting)
        return Reply()
    entry = questions.entry(*setting, wanted.split, wanted.index)
    if wanted.answer is None:
        return Reply(question=entry["question"], stored=questions.stored_answer(entry))
    reward, reason = questions.score(*setting, entry, wanted.answer)
    return Reply(reward=reward, reason=reason)


if __name__ == "__main__":
    main()
