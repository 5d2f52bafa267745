"""Environments that break one promise each, which another process can import."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import tempfile
import threading
import time
from typing import Any

from palaestra.envs.core import Env, Reset, Step, Verdict

LOADED: list[bool] = []
WORDS = ["brass", "candle", "drum", "elm", "flute", "glove", "harp", "ivory"]


class Corridor(Env[str, str]):
    """Walk to the door at the end; right in every respect."""

    length = 9

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        self.place = (seed or 0) % 3
        return Reset(f"You are at {self.place}.", self.info())

    async def step(self, action: str) -> Step[str]:
        self.place = max(0, self.place + {"on": 1, "back": -1}.get(action, 0))
        return Step(f"You are at {self.place}.", float(self.there), self.there, False, self.info(action))

    async def oracle(self) -> str:
        return "on"

    @property
    def there(self) -> bool:
        return self.place >= self.length

    def info(self, action: str = "on") -> dict[str, Any]:
        known = action in ("on", "back")
        return {"admissible_commands": ["on", "back"], "success": self.there, "invalid": not known}


class HashOrder(Corridor):
    """The order of a set of texts is that of their hashes."""

    async def reset(self, **kwargs: Any) -> Reset[str]:
        first = await super().reset(**kwargs)
        return first._replace(observation=" ".join(set(WORDS)))


class Shared(Corridor):
    """All instances walk one corridor."""

    places: dict[str, int] = {}

    @property
    def place(self) -> int:
        return self.places.get("all", 0)

    @place.setter
    def place(self, place: int) -> None:
        self.places["all"] = place


class Leaky(Corridor):
    """Keeps what `what` names beyond `close`."""

    def __init__(self, what: str) -> None:
        self.what, self.kept = what, list[Any]()

    async def reset(self, **kwargs: Any) -> Reset[str]:
        if self.what == "file":
            self.kept.append(open("/dev/null"))  # noqa: SIM115
        elif self.what == "thread":
            thread = threading.Thread(target=time.sleep, args=(20,), daemon=True)
            thread.start()
        elif self.what == "process":
            self.kept.append(subprocess.Popen(["sleep", "20"]))
        elif self.what == "task":
            self.kept.append(asyncio.create_task(asyncio.sleep(20)))
        elif self.what == "folder":
            self.kept.append(tempfile.mkdtemp(prefix="left-"))
        elif self.what == "chdir":
            os.chdir("/")
        elif self.what == "variable":
            os.environ["ODD_LEAK"] = str(kwargs)
        return await super().reset(**kwargs)


class Imported(Corridor):
    """Its class sets an environment variable, as an import may; no instance does."""

    async def reset(self, **kwargs: Any) -> Reset[str]:
        if not LOADED:
            LOADED.append(True)
            os.environ["ODD_IMPORTED"] = "1"
        return await super().reset(**kwargs)


class Long(Corridor):
    """Says much."""

    def __init__(self, mebibytes: int) -> None:
        self.text = "x" * (mebibytes * 2**20 + 1)

    async def step(self, action: str) -> Step[str]:
        return (await super().step(action))._replace(observation=self.text)


class Stuck(Corridor):
    """Starts a process, and never comes back."""

    async def reset(self, **kwargs: Any) -> Reset[str]:
        self.started = subprocess.Popen(["sleep", "41.75"])
        while True:
            time.sleep(0.1)


class HiddenLimit(Corridor):
    """Terminates after nine steps, which is a limit."""

    async def reset(self, **kwargs: Any) -> Reset[str]:
        self.steps = 0
        return await super().reset(**kwargs)

    async def step(self, action: str) -> Step[str]:
        self.steps += 1
        taken = await super().step(action)
        return taken._replace(terminated=taken.terminated or self.steps == 9)


class WrongFlag(Corridor):
    """Truncates where the task is solved."""

    length = 1

    async def step(self, action: str) -> Step[str]:
        taken = await super().step(action)
        return taken._replace(terminated=False, truncated=taken.terminated)


class EndlessSuccess(Corridor):
    """Goes on when the task is solved."""

    async def step(self, action: str) -> Step[str]:
        return (await super().step(action))._replace(terminated=False)


class Easy(Corridor):
    """A few steps on solve it."""

    length = 3


class PaysAnything(Corridor):
    """Rewards every text that is not a command: a reward hack."""

    async def step(self, action: str) -> Step[str]:
        taken = await super().step(action)
        return taken._replace(reward=1.0) if action and action not in ("on", "back") else taken


class PaysSilence(Corridor):
    """Rewards an empty answer."""

    async def step(self, action: str) -> Step[str]:
        return (await super().step(action))._replace(reward=float(not action))


class PaysIdleness(Corridor):
    """Grades the untouched state as solved in part."""

    async def verify(self) -> Verdict:
        return Verdict(0.5, False, {})


class Undecided(Corridor):
    """Every episode is another one."""

    count = 0

    async def step(self, action: str) -> Step[str]:
        type(self).count += 1
        return (await super().step(action))._replace(observation=f"Step {self.count} of all.")


class SharedSnapshot(Corridor):
    """Its snapshot is no copy: continuations walk together."""

    async def reset(self, **kwargs: Any) -> Reset[str]:
        self.box = [0]
        return await super().reset(**kwargs)

    async def step(self, action: str) -> Step[str]:
        self.box[0] += 1
        taken = await super().step(action)
        return taken._replace(observation=f"{taken.observation} Step {self.box[0]}.")

    async def snapshot(self) -> Any:
        return self.place, self.box

    async def restore(self, state: Any) -> None:
        self.place, self.box = state


class ChangesInfo(Corridor):
    """Writes into an info that it has handed out, under a key of its own."""

    async def step(self, action: str) -> Step[str]:
        taken = await super().step(action)
        self.log = [*getattr(self, "log", []), action]
        self.last = getattr(self, "last", {"log": []})
        self.last["log"].append(action)
        return taken._replace(info={**taken.info, "inventory": self.last["log"]})


class DrawsLikeTheAgent(Corridor):
    """One of six words is right, drawn as most environments draw."""

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        self.goal, self.place = random.Random(seed).choice(WORDS), 0
        return Reset("Say a word.", self.info())

    async def step(self, action: str) -> Step[str]:
        self.place = self.length if action == self.goal else 0
        return Step("No." if not self.there else "Yes.", float(self.there), self.there, False, self.info())

    async def oracle(self) -> str:
        return self.goal

    def info(self, action: str = "") -> dict[str, Any]:
        return {"admissible_commands": list(WORDS), "success": self.there}


class OddReward(Corridor):
    """Pays what is no number to reckon with."""

    def __init__(self, reward: str, graded: bool = False) -> None:
        self.reward = float(reward)
        if graded:
            self.verify = self._verify

    async def step(self, action: str) -> Step[str]:
        step = await super().step(action)
        return step if hasattr(self, "verify") else step._replace(reward=self.reward)

    async def _verify(self) -> Verdict:
        return Verdict(self.reward, False, {})


class OddText(Corridor):
    """Raises with half of a surrogate pair."""

    async def step(self, action: str) -> Step[str]:
        raise ValueError("\ud83d")
