"""The launcher `ray`: `palaestra.training.run.train`, with the run spread over a cluster."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial

from palaestra.config import Recipe
from palaestra.distributed.cluster import joined
from palaestra.errors import PalaestraError, require
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
            if recipe.cluster.learner.here:
                return self._here(recipe, resume, progress)
            return self._placed(recipe, resume, progress)

    def _here(self, recipe: Recipe, resume: bool, progress: Progress | None) -> RunResult:
        from palaestra.distributed.player import open_player

        return train(
            recipe,
            resume=resume,
            progress=progress,
            open_player=partial(open_player, imports=self.imports),
        )

    def _placed(self, recipe: Recipe, resume: bool, progress: Progress | None) -> RunResult:
        from palaestra.distributed.ranks import Errand, train_on_ranks

        path = tuple(map(os.path.abspath, sys.path))
        result = train_on_ranks(Errand(recipe, resume, self.imports, path, os.getcwd()), progress)
        if not result.directory.is_dir():
            raise PalaestraError(
                f"the run is in {result.directory.resolve()} on the learner's node, which this machine does not see; "
                "choose an out= on a file system that all nodes share"
            )
        return result
