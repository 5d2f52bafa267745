"""Needs a container."""

import verifiers.v1 as vf


class Boxed(vf.Task[vf.TaskData]):
    NEEDS_CONTAINER = True


class BoxedTaskset(vf.Taskset[Boxed]):
    def load(self):
        yield Boxed(vf.TaskData(prompt="Mend it."), self.config.task)


__all__ = ["BoxedTaskset"]
