"""Two agents."""

import verifiers.v1 as vf


class DebateTaskset(vf.Taskset[vf.Task]):
    def load(self):
        yield vf.Task(vf.TaskData(prompt="Debate."), self.config.task)


class DebateConfig(vf.EnvConfig):
    pro: vf.AgentConfig = vf.AgentConfig()
    con: vf.AgentConfig = vf.AgentConfig()


class Debate(vf.Env[DebateConfig]):
    async def run(self, task, agents):
        await agents.pro.run(task)
        await agents.con.run(task)


__all__ = ["Debate", "DebateTaskset"]
