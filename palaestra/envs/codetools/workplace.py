"""The sandbox of one episode, which all of its code tools share; it is started when the first of them needs it."""

from __future__ import annotations

from collections.abc import Mapping

from palaestra.envs.codetools.gate import AT_ONCE
from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.place import Place, Unconfined
from palaestra.envs.codetools.where import NOWHERE, Where
from palaestra.errors import EnvError
from palaestra.sandboxes.core import Sandbox
from palaestra.sandboxes.sharing import Shared, borrow

READY = 1
"""Sandboxes of a kind that are kept ready where several want some: a crowd has to wait for processors anyway."""


class Workplace:
    """A place, or the promise of one."""

    def __init__(self, where: Where, limits: CodeLimits) -> None:
        """See the class.

        Args:
            where: what starts it.
            limits: of the sandbox.
        """
        self.where, self._limits = where, limits
        self._files: Mapping[str, bytes] = {}
        self._place: Place | None = None
        self._source: Shared | None = None

    @property
    def temporary(self) -> str:
        """A folder there that can be written."""
        return str(self._place.folder) if isinstance(self._place, Unconfined) else "/tmp"

    async def begin(self, files: Mapping[str, bytes]) -> None:
        """Leave the place where there is one; the next has these files in its work folder: path there -> content."""
        await self.leave()
        self._files = files

    async def place(self) -> Place:
        """The place, started if need be.

        Raises:
            SandboxError: it cannot be started.
        """
        if self._place is None:
            place = await self._started()
            try:
                for path, content in self._files.items():
                    await place.write_file(path, content)
            except BaseException:
                await place.close()
                raise
            self._place = place
        return self._place

    async def sandbox(self) -> Sandbox:
        """The same, where it is a sandbox.

        Raises:
            EnvError: it is none.
            SandboxError: it cannot be started.
        """
        place = await self.place()
        if not isinstance(place, Sandbox):
            raise EnvError("a shell runs in a sandbox only; take bubblewrap or docker")
        return place

    async def leave(self) -> None:
        """Close the place."""
        place, self._place = self._place, None
        if place is not None:
            await place.close()

    async def close(self) -> None:
        """Close the place, and what starts places. May be called more than once, and used again afterwards."""
        try:
            await self.leave()
        finally:
            source, self._source = self._source, None
            if source is not None:
                await source.give_back()

    async def _started(self) -> Place:
        if self.where.name == NOWHERE:
            return Unconfined(self._limits)
        if self._source is None:
            self._source = borrow(self.where.name, self.where.settings, READY, crowd=2, at_once=AT_ONCE)
        return await self._source.start(self._limits.spec(self.where.image))
