"""Has tools."""

import verifiers.v1 as vf


class Adder(vf.Toolset[vf.ToolsetConfig]):
    @vf.tool
    async def add(self, a: int, b: int) -> int:
        """Add."""
        return a + b


class Tooled(vf.Task[vf.TaskData]):
    @classmethod
    def toolsets(cls, config):
        return [Adder(vf.ToolsetConfig())]


class ToolsTaskset(vf.Taskset[Tooled]):
    def load(self):
        yield Tooled(vf.TaskData(prompt="Add."), self.config.task)


__all__ = ["ToolsTaskset"]
