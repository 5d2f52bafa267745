"""The journal: episodes that are over and that no update has had yet, on disk as soon as they are.

It is a stock of work, not the account of it: what it lacks is played again, and what no group waits for is ignored.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from palaestra.agents.episode import Episode
from palaestra.errors import DataError
from palaestra.files import cannot_write
from palaestra.training.asynchronous.staleness import newest
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import TrajectoryWriter, read_trajectories


class Journal:
    """Opens the file at `path`, or makes it.

    Raises:
        PalaestraError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = self._read()
        """By id, what earlier sessions left."""
        self._writer = TrajectoryWriter(path)

    def append(self, trajectory: Trajectory) -> None:
        """Keep an episode.

        Raises:
            PalaestraError: it cannot be written; the run can go on once there is room.
        """
        self._writer.append(trajectory)

    def forget_after(self, version: int) -> None:
        """Drop what weights newer than `version` sampled: the run has gone back, and there are no such weights.

        Raises:
            PalaestraError: as `replace`.
        """
        kept = {each: t for each, t in self._known.items() if newest(t) <= version}
        if len(kept) < len(self._known):  # or a later session, with weights of that version again, would take them
            self.replace(kept.values())
        self._known = kept

    def find(self, episode: Episode) -> Trajectory | None:
        """This episode, if an earlier session played it to its end; once."""
        found = self._known.pop(episode.id, None)
        task = episode.task
        same = found is not None and (found.task, found.params, found.task_seed, found.seed) == (
            *(task.name, task.params, task.seed),
            episode.seed,
        )
        return found if same else None

    def replace(self, trajectories: Iterable[Trajectory]) -> None:
        """Hold these and no others.

        Raises:
            PalaestraError: they cannot be written; the journal is as it was.
        """
        fresh = self.path.with_name(f".{self.path.name}.partial")
        try:
            fresh.unlink(missing_ok=True)
            with TrajectoryWriter(fresh) as writer:
                for trajectory in trajectories:
                    writer.append(trajectory)
            self._writer.close()
            os.replace(fresh, self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        finally:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
        self._writer = TrajectoryWriter(self.path)

    def sync(self) -> None:
        """Return when all of it is on the disk itself."""
        self._writer.sync()

    def close(self) -> None:
        """May be called more than once."""
        self._writer.close()

    def _read(self) -> dict[str, Trajectory]:
        """What is there; a damaged file is given up, as all that it holds can be played again."""
        if not self.path.exists():
            return {}
        try:
            return {trajectory.id: trajectory for trajectory in read_trajectories(self.path)}
        except DataError as error:
            warnings.warn(f"{error}; its episodes are played again", stacklevel=3)
            try:
                self.path.unlink()
            except OSError as failure:
                raise cannot_write(self.path, failure) from failure
            return {}
