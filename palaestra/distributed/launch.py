"""The launcher `ray`: `palaestra.training.run.train`, with the run spread over a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from palaestra.config import Recipe
from palaestra.distributed.cluster import joined
from palaestra.errors import require
from palaestra.training.run import RunResult, train
from palaestra.training.trainer import Progress


@dataclass(frozen=True, slots=True)
class RayLauncher:
    """Trains on a Ray cluster."""

    address: str | None = None
    """Of its head; `None` starts one on this machine for the time of the run."""
    imports: tuple[str, ...] = ()
    """Modules or files, on every node, that register environments."""

    def __call__(self, recipe: Recipe, *, resume: bool = False, progress: Progress | None = None) -> RunResult:
        """As `train`; whatever happens, no actor outlives the call.

        Raises:
            MissingExtraError: the extra `ray` is not installed.
            ConfigError: no cluster answers at the address, or none of its nodes has what the recipe asks for.
            PalaestraError: as `train`.
        """
        require("ray", "ray")
        with joined(self.address):
            from palaestra.distributed.player import RayPlayer

            return train(
                recipe,
                resume=resume,
                progress=progress,
                open_player=lambda recipe, loaded: RayPlayer(recipe, loaded, self.imports),
            )
