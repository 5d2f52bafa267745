"""Graded by a model, called from a reward."""

import verifiers.v1 as vf


class JudgedConfig(vf.TaskConfig):
    judge: vf.JudgeConfig = vf.JudgeConfig(base_url="http://127.0.0.1:1/v1")


class Judged(vf.Task[vf.TaskData, vf.State, JudgedConfig]):
    @vf.reward
    async def good(self, trace):
        judge = vf.Judge(self.config.judge)
        return float("yes" in (await judge.complete("Good?", trace=trace)).text)


class JudgedTasksetConfig(vf.TasksetConfig):
    task: JudgedConfig = JudgedConfig()


class JudgedTaskset(vf.Taskset[Judged, JudgedTasksetConfig]):
    def load(self):
        yield Judged(vf.TaskData(prompt="Write a poem."), self.config.task)


__all__ = ["JudgedTaskset"]
