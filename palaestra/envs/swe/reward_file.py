"""Tasks whose tests write a number: Harbor's, where anything in the container may be what is judged.

They are run in a fork of the agent's sandbox: nothing that the agent started runs there, and the tests and the place of
the verdict are laid anew. What else it changed, the programs that the tests use among it, is part of what they judge.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from palaestra.envs.swe.grade import Grade
from palaestra.envs.swe.instance import Instance
from palaestra.errors import DataError, SandboxDaemonError, SandboxError, SandboxPathError
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.core import Sandbox

REWARD = "/logs/verifier/reward.txt"
REWARDS = "/logs/verifier/reward.json"
"""An object of numbers instead: `reward` counts, or where there is none the mean of all."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def grade(instance: Instance, final: Sandbox) -> Grade:
    """Run the tests in a fork of `final` and read the number that they write.

    Raises:
        DataError: the tests are not there.
        SandboxError: `final` is lost.
    """
    (fork,) = await final.fork(1)
    async with fork:
        try:
            return await _judge(instance, fork)
        except SandboxDaemonError:
            raise
        except SandboxError as error:
            return Grade(solved=False, required=1, reason=f"the tests cannot be run: {error}")


async def _judge(instance: Instance, fork: Sandbox) -> Grade:
    for target, folder in instance.test_files.items():
        if not Path(folder).is_dir():
            raise DataError(f"the tests of {instance.name!r} are not at {folder}")
        await fork.exec(Exec(argv=("rm", "-rf", "--", target), cwd="/"))
        await fork.upload(Path(folder), target)
    logs = REWARD.rpartition("/")[0]
    await fork.exec(Exec(argv=("sh", "-c", 'rm -rf -- "$0" && mkdir -p "$0"', logs), cwd="/"))
    result = await fork.exec(
        Exec(
            argv=instance.test_command,
            cwd=instance.repository,
            env={"PATH": PATH, "BASH_ENV": "", "ENV": "", "LD_PRELOAD": ""},
            timeout=instance.test_seconds,
        )
    )
    if result.ending != "exit":
        return Grade(solved=False, required=1, reason=f"the tests were stopped: {result.ending}")
    reward = await _written(fork)
    if reward is None or not math.isfinite(reward):
        return Grade(solved=False, required=1, share=0.0, reason=f"the tests wrote no number to {REWARD}")
    solved, share = reward >= 1, min(1.0, max(0.0, reward))
    reason = "" if solved else f"the reward is {reward:g}"
    return Grade(solved=solved, passed=int(solved), required=1, share=share, reason=reason)


async def _written(fork: Sandbox) -> float | None:
    try:
        return float(await fork.read_file(REWARD, limit=1000))
    except SandboxPathError:
        pass
    except ValueError:
        return None
    try:
        rewards = msgspec.json.decode(await fork.read_file(REWARDS, limit=100_000), type=dict[str, float])
    except (SandboxPathError, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return rewards.get("reward", sum(rewards.values()) / len(rewards) if rewards else None)
