"""Its reward runs a program."""

import verifiers.v1 as vf


class Runs(vf.Task[vf.TaskData]):
    @vf.reward
    async def echoes(self, trace, runtime):
        result = await runtime.run(["echo", trace.last_reply], {})
        return float(result.stdout.strip() == "hello")


class RunsTaskset(vf.Taskset[Runs]):
    def load(self):
        yield Runs(vf.TaskData(prompt="Say hello."), self.config.task)


__all__ = ["RunsTaskset"]
