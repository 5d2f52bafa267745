"""The plug-in for verl 0.9: our episodes as an agent loop, our algorithms as a trainer and its loss.

verl loads it by the entry point `palaestra` in the group `verl.plugins`, and says nothing where that fails;
`registered` does.
"""

from __future__ import annotations

from palaestra.errors import PalaestraError

NAME = "palaestra"
"""Of the agent loop and of the trainer."""

try:
    from palaestra.integrations.verl import agent_loop, trainer
except Exception as error:  # told by `registered`; verl itself swallows it
    FAILED: str | None = f"{type(error).__name__}: {error}"
else:
    FAILED = None
    __all__ = ["NAME", "agent_loop", "registered", "trainer"]


def registered() -> dict[str, type]:
    """What verl knows of ours by the name `palaestra`: `agent_loop` and `trainer`.

    Raises:
        PalaestraError: the plug-in did not load; the message says why.
    """
    if FAILED is not None:
        raise PalaestraError(f"verl has not got the plug-in palaestra: {FAILED}")
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    if NAME not in _agent_loop_registry or NAME not in TRAINER_REGISTRY:
        raise PalaestraError(
            "verl has not got the plug-in palaestra: is palaestra not installed, or VERL_USE_EXTERNAL_PLUGINS set?"
        )
    return {"agent_loop": agent_loop.PalaestraAgentLoop, "trainer": TRAINER_REGISTRY[NAME]}
