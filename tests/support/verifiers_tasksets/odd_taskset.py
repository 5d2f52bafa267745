"""What cannot be played, or fails, by the setting `what`."""

import os

import verifiers.v1 as vf


class Odd(vf.Task[vf.TaskData]):
    @vf.reward
    async def said(self, trace):
        what = self.data.name
        if what == "raise":
            raise RuntimeError("the checker broke")
        if what == "exit":
            raise SystemExit(3)
        if what == "hard exit":
            os._exit(0)
        if what == "text":
            return "much"
        return {"nan": float("nan"), "inf": float("inf")}.get(what, 0.5)


class OddConfig(vf.TasksetConfig):
    what: str = "fine"


class OddTaskset(vf.Taskset[Odd, OddConfig]):
    def load(self):
        if self.config.what == "no load":
            raise OSError("no network here")
        if self.config.what == "none":
            return
        prompt = "Say something."
        if self.config.what == "image":
            prompt = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
        for _ in range(3):
            yield Odd(vf.TaskData(name=self.config.what, prompt=prompt), self.config.task)


__all__ = ["OddTaskset"]
