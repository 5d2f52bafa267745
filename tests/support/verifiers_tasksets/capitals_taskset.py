"""Single replies with several rewards, prompts as messages, hooks, and rows that are the same question twice."""

import verifiers.v1 as vf

ROWS = [("Peru", "Lima"), ("Kenya", "Nairobi"), ("Nepal", "Kathmandu"), ("Peru", "Lima")] + [
    (f"Country {n}", f"City {n}") for n in range(60)
]


class CapitalData(vf.TaskData):
    answer: str


class Capital(vf.Task[CapitalData]):
    async def setup(self, trace, runtime):
        trace.info["ready"] = True

    async def finalize(self, trace, runtime):
        trace.info["done"] = trace.info["ready"]

    @vf.reward(weight=0.75)
    async def right(self, trace):
        return float(self.data.answer in trace.last_reply)

    @vf.reward(weight=0.25)
    async def finished(self, task, trace):
        return {"short": float(len(trace.last_reply) < 100), "hooks": float(trace.info["done"])}

    @vf.metric
    async def words(self, trace):
        return len(trace.last_reply.split())


class CapitalsConfig(vf.TasksetConfig):
    polite: bool = False


class Capitals(vf.Taskset[Capital, CapitalsConfig]):
    def load(self):
        print("loading capitals")  # noise on standard output harms nothing
        for country, city in ROWS:
            prompt = [
                {"role": "user", "content": "What is the capital of France?"},
                {"role": "assistant", "content": "Paris"},
                {"role": "user", "content": [{"type": "text", "text": f"What is the capital of {country}?"}]},
            ]
            system = "Be polite." if self.config.polite else None
            yield Capital(CapitalData(prompt=prompt, answer=city, system_prompt=system), self.config.task)


__all__ = ["Capitals"]
