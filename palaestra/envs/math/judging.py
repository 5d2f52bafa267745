"""The far side of the judges: a worker process in which `math-verify` compares answers, and which may be killed.

What is judged may take for ever or all memory, and computer algebra cannot be interrupted from within: the kernel ends
this process where it uses more than it may.
"""

from __future__ import annotations

import logging
import resource
import signal
import socket
from typing import Any

import msgspec

from palaestra.envs.isolation.wire import Frames, frame

CPU_SECONDS = 2.0
"""For one judgement; the slowest of MATH-500 needs half a second."""
MEMORY_BYTES = 2 << 30
"""Address space of a judge."""


class Question(msgspec.Struct, frozen=True):
    """Whether `answer` is `gold`; both as they stood in their boxes."""

    answer: str
    gold: str


class Judgement(msgspec.Struct, frozen=True):
    """What the judge found."""

    right: bool
    error: str = ""
    """Why it could not say; empty where it could."""


READY = Judgement(right=False, error="ready")
"""Said once, when math-verify is imported."""
_QUESTIONS: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)


def serve(near: socket.socket) -> None:
    """Answer the questions that come on `near`, until it closes."""
    import math_verify

    logging.disable(logging.CRITICAL)  # it logs every answer that it cannot read
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process, whatever runs in it
    near.sendall(frame(READY))
    frames = Frames()
    while data := near.recv(frames.missing):
        for packed in frames.add(data):
            near.sendall(frame(_judge(math_verify, _QUESTIONS.decode(packed))))


def _judge(library: Any, question: Question) -> Judgement:
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        gold, answer = (
            library.parse(rf"\boxed{{{each}}}", parsing_timeout=None) for each in (question.gold, question.answer)
        )
        return Judgement(bool(library.verify(gold, answer, timeout_seconds=None)))
    except Exception as error:
        return Judgement(False, type(error).__name__)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
