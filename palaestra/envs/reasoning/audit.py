"""What nonsense earns, generator by generator: `python -m palaestra.envs.reasoning.audit [QUESTIONS] [GENERATOR ...]`.

Answers that show no understanding are given to every question, and their mean scores are written as a table. An answer
may be right by chance, as "yes" is to half of all yes-or-no questions; what counts is the `excess`, the mean score
beyond the share of questions whose stored answer it is (of all answers at once: beyond that of the most frequent one).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from string import ascii_lowercase
from typing import NamedTuple

from palaestra.envs.reasoning import bench
from palaestra.envs.reasoning.generators import OFFERED, REFUSED
from palaestra.envs.reasoning.judge import Wanted

CONSTANTS = (
    "?",
    "0",
    "1",
    "True",
    "yes",
    "[]",
    "{}",
    "[[]]",
    "null",
    "4*6*1*1",
    "(P ∨ Q)",
    "oracle_answer",
    'entry["answer"]',
)
"""The same answer to every question; the last two are code that some scorers would run."""
LIMIT = 0.4
"""A generator with a larger excess is not offered."""


class Asked(NamedTuple):
    """A question."""

    place: int
    question: str
    stored: str | None


class Finding(NamedTuple):
    """What one generator paid."""

    generator: str
    scores: dict[str, float]
    """Mean score by kind of answer."""
    excess: float
    """The largest mean score beyond being right by chance."""
    by: str
    """The answers that earned it."""


def audit(generator: str, questions: int) -> Finding:
    """Try everything on the first training questions of a generator.

    Raises:
        EnvError: it makes no questions.
    """
    asked = [Asked(index, *_ask(generator, index)) for index in range(questions)]
    tries = {name: [say(one) for one in asked] for name, say in _strategies(asked).items()}
    scores, excess = {}, {}
    for name, said in tries.items():
        paid = [_score(generator, one, text) for one, text in zip(asked, said, strict=True)]
        right = [float(one.stored == text) for one, text in zip(asked, said, strict=True)]
        chance = _commonest(asked) if name == "all at once" else _mean(right)
        scores[name], excess[name] = _mean(paid), _mean(paid) - chance
    by = max(excess, key=excess.__getitem__)
    return Finding(generator, scores, excess[by], by)


def _strategies(asked: Sequence[Asked]) -> dict[str, Callable[[Asked], str]]:
    random = Random(0)
    answers = [one.stored or "?" for one in asked]
    every = " ".join(dict.fromkeys(answers))
    return {
        "empty": lambda one: "",
        "random": lambda one: "".join(random.choices(ascii_lowercase + " ", k=20)),
        "echo": lambda one: one.question,
        "another's": lambda one: answers[(one.place + 1) % len(answers)],
        "the first's": lambda one: answers[0] if one.place else "?",
        "all at once": lambda one: every,
        **{text: lambda one, text=text: text for text in CONSTANTS},  # type: ignore[misc]
    }


def _ask(generator: str, index: int) -> tuple[str, str | None]:
    reply = bench.ask(Wanted(generator, None, {}, "train", index, seconds=200))
    return reply.question, reply.stored


def _score(generator: str, one: Asked, answer: str) -> float:
    return bench.ask(Wanted(generator, None, {}, "train", one.place, answer, seconds=20)).reward


def _commonest(asked: Sequence[Asked]) -> float:
    """Share of the most frequent stored answer, which whoever gives several at once could have given alone."""
    counts = Counter(one.stored for one in asked if one.stored is not None)
    return max(counts.values(), default=0) / len(asked)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def table(findings: Sequence[Finding], questions: int) -> str:
    """Markdown, the most generous first."""
    lines = [
        f"{questions} questions each.\n",
        "| Generator | Excess | By | Empty | Random | Echo | Another's | All at once | Best constant | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(findings, key=lambda one: (-round(one.excess, 3), one.generator)):
        kinds = [f"{one.scores[name]:.2f}" for name in ("empty", "random", "echo", "another's", "all at once")]
        best = max(CONSTANTS, key=one.scores.__getitem__)
        constant = f"{one.scores[best]:.2f} `{best}`" if one.scores[best] else "0.00"
        state = "refused" if one.generator in REFUSED else "offered"
        cells = [f"`{one.generator}`", f"{one.excess:.2f}", f"`{one.by}`", *kinds, constant, state]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    questions = int(arguments[0]) if arguments else 20
    names = arguments[1:] or sorted({*OFFERED, *REFUSED} - {"composite"})
    findings = []
    for name in names:
        findings.append(audit(name, questions))
        print(f"{name}: {findings[-1].excess:.2f} by {findings[-1].by}", file=sys.stderr, flush=True)
    print(table(findings, questions))


if __name__ == "__main__":
    main(sys.argv[1:])
