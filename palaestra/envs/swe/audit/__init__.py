"""Attack agents: what somebody would do who wants the reward of a software-engineering task and not its solution."""

from palaestra.envs.swe.audit.attack import Attack
from palaestra.envs.swe.audit.catalogue import ATTACKS

__all__ = ["ATTACKS", "Attack"]
