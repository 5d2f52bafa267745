"""A taskset of verifiers: sums of two numbers, answered in a box. An example, and what plays where none is named."""

# mypy: ignore-errors
# verifiers is installed in an interpreter of its own, where this is imported.

import verifiers.v1 as vf
from verifiers.v1.utils.score import extract_boxed_answer


class SumData(vf.TaskData):
    """One question."""

    answer: str


class SumTask(vf.Task[SumData]):
    """Answered by one reply."""

    @vf.reward
    async def right(self, trace: vf.Trace) -> float:
        """Whether the boxed number is the sum."""
        return float(extract_boxed_answer(trace.last_reply, strict=True).strip() == self.data.answer)

    @vf.metric
    async def characters(self, trace: vf.Trace) -> float:
        """Length of the reply."""
        return float(len(trace.last_reply))


class SumsConfig(vf.TasksetConfig):
    """How far the numbers go."""

    most: int = 12


class SumsTaskset(vf.Taskset[SumTask, SumsConfig]):
    """Every pair of numbers up to `most`, in order."""

    def load(self):
        """Build the tasks."""
        for a in range(self.config.most):
            for b in range(self.config.most):
                prompt = f"What is {a} + {b}? Answer in \\boxed{{}}."
                yield SumTask(SumData(id=f"{a}+{b}", prompt=prompt, answer=str(a + b)), self.config.task)


__all__ = ["SumsTaskset"]
