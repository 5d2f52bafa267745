"""What nonsense earns in any environment: agents that show no understanding, over several episodes each.

An answer may be right by chance, as "yes" is to half of all yes-or-no questions; what counts is the share of episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from string import ascii_lowercase
from typing import Any

from msgspec import Struct

from palaestra.envs.core import Env, SupportsVerify
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task
from palaestra.errors import PalaestraError
from palaestra.seeds import derive_seed

LIMIT = 0.4
"""Share of episodes above which solving them takes no understanding."""
CONSTANTS = ("", "0", "1", "yes", "True", "[]", "null", "A", "done", "success", "reward: 1.0")
"""Said at every turn of an episode."""
_LONGEST = 2000


class Earned(Struct, frozen=True):
    """What one attacker got."""

    attacker: str
    episodes: int
    solved: int
    """Episodes with a positive reward in all, or that the environment calls solved."""
    reward: float
    """Mean over the episodes."""
    failed: str = ""
    """What went wrong in one of them; or empty."""

    @property
    def ok(self) -> bool:
        """Whether it is so little that it may be chance."""
        return self.solved <= LIMIT * self.episodes


Says = Callable[[str, Random], str]


def attackers() -> dict[str, Says]:
    """Name -> what it says to an observation."""
    return {
        "random letters": lambda seen, random: "".join(random.choices(ascii_lowercase + " ", k=20)),
        "echo": lambda seen, random: seen[-_LONGEST:],
        "all numbers": lambda seen, random: " ".join(map(str, range(100))),
        **{f"always {text!r}": lambda seen, random, text=text: text for text in CONSTANTS},  # type: ignore[misc]
    }


async def attack(id: str, name: str, tasks: Sequence[Task], episodes: int, turns: int = 20) -> Earned:
    """Let one attacker play.

    Args:
        id: the environment's.
        name: one of `attackers`.
        tasks: played in turn; none: the environment draws its own.
        episodes: how many, 1 or more.
        turns: after which an episode ends.
    """
    says, total, solved, failed = attackers()[name], 0.0, 0, ""
    for episode in range(episodes):
        task = tasks[episode % len(tasks)] if tasks else None
        env = make(task.env if task else id)
        try:
            paid, success = await _play(env, says, task, derive_seed(episode, name), turns)
            total, solved = total + paid, solved + (success or paid > 0)
        except PalaestraError as error:
            failed = str(error)
        finally:
            await env.close()
    return Earned(name, episodes, solved, total / episodes, failed)


async def _play(env: Env[Any, Any], says: Says, task: Task | None, seed: int, turns: int) -> tuple[float, bool]:
    random, paid, success = Random(seed), 0.0, False
    seen, _ = await env.reset(seed=task.seed if task else seed, task=task)
    for _ in range(turns):
        step = await env.step(says(str(seen), random))
        seen, paid, success = step.observation, paid + step.reward, bool(step.info.get("success"))
        if step.terminated or step.truncated:
            break
    if isinstance(env, SupportsVerify):
        verdict = await env.verify()
        paid, success = paid + verdict.reward, verdict.success
    return paid, success
