"""The result of an evaluation: what is reported, printed, compared and stored as JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from palaestra.agents.engines.openai.usage import Usage, usage_of
from palaestra.errors import DataError
from palaestra.evaluation.intervals import Rate, wilson
from palaestra.files import replace_text
from palaestra.trajectories.record import Trajectory


class KindResult(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: the episodes of one kind of task."""

    success: Rate
    length: float
    """Mean actions of an episode."""
    reward: float
    """Mean return."""


class EvalResult(msgspec.Struct, frozen=True, kw_only=True):
    """An agent on a suite. Every episode counts: one that was cut off by an error is a failure."""

    suite: str
    """Reference of the suite, `NAME[/LEVEL]:SPLIT`."""
    agent: str
    n: int
    """Episodes."""
    success: Rate
    """Share of solved episodes with its Wilson 95 % interval."""
    reward: float
    """Mean return."""
    length: float
    """Mean actions of an episode."""
    invalid_rate: float
    """Share of actions that the environment refused."""
    by_kind: dict[str, KindResult]
    """A row per kind of task, by name."""
    statuses: dict[str, int]
    """Episodes by status."""
    env_steps: int
    tokens_generated: int
    """Tokens that the policy sampled."""
    seconds: float = 0.0
    """Wall-clock time of the call that made the result; episodes found in a store took none."""
    temperature: float | None = None
    """At which a language model sampled; `None` for other agents."""
    top_k: int = 0
    """As `SamplingParams.top_k`."""
    top_p: float = 1.0
    """As `SamplingParams.top_p`."""
    usage: Usage | None = None
    """Requests, tokens and cost of a model behind an endpoint, over these episodes; what attempts took that were given
    up and started again is not in it."""

    @classmethod
    def of(
        cls,
        trajectories: Sequence[Trajectory],
        *,
        suite: str,
        agent: str,
        seconds: float = 0.0,
        temperature: float | None = None,
    ) -> EvalResult:
        """Summarise finished episodes."""
        total = _row(trajectories)
        steps = [step for t in trajectories for step in t.own_steps]
        kinds = sorted({t.kind for t in trajectories if t.kind})
        usage = usage_of(trajectories)
        sampled = sum(t.sampled_tokens for t in trajectories)
        return cls(
            suite=suite,
            agent=agent,
            n=len(trajectories),
            success=total.success,
            reward=total.reward,
            length=total.length,
            invalid_rate=_mean(step.invalid for step in steps),
            by_kind={kind: _row([t for t in trajectories if t.kind == kind]) for kind in kinds},
            statuses=dict(sorted(Counter(t.status for t in trajectories).items())),
            env_steps=len(steps),
            tokens_generated=sampled if usage is None else max(sampled, usage.completion_tokens),
            seconds=seconds,
            temperature=temperature,
            usage=usage,
        )

    def to_json(self) -> str:
        """This result as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> EvalResult:
        """The result that `to_json` wrote.

        Raises:
            DataError: the text is none.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise DataError(f"not an evaluation result: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON; a kill leaves the old file or the new one.

        Raises:
            PalaestraError: the file cannot be written.
        """
        replace_text(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EvalResult:
        """The result that `save` wrote.

        Raises:
            DataError: the file cannot be read, or holds none.
        """
        try:
            return cls.from_json(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _row(trajectories: Sequence[Trajectory]) -> KindResult:
    return KindResult(
        success=wilson(sum(t.success for t in trajectories), len(trajectories)),
        length=_mean(len(t.steps) for t in trajectories),
        reward=_mean(t.total_reward for t in trajectories),
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
