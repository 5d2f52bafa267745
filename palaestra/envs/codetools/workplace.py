"""The sandbox of one episode, which all of its code tools share; it is started when the first of them needs it."""

from __future__ import annotations

from collections.abc import Mapping

from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.place import Place, Unconfined
from palaestra.envs.codetools.supply import supplied
from palaestra.envs.codetools.where import NOWHERE, Where
from palaestra.errors import EnvError
from palaestra.sandboxes.core import Sandbox


class Workplace:
    """A place, or the promise of one."""

    def __init__(self, where: Where, limits: CodeLimits, files: Mapping[str, bytes]) -> None:
        """See the class.

        Args:
            where: what starts it.
            limits: of the sandbox.
            files: what is in the work folder from the beginning: path there -> content.
        """
        self.where, self._limits, self._files = where, limits, files
        self._place: Place | None = None

    @property
    def temporary(self) -> str:
        """A folder there that can be written."""
        return str(self._place.folder) if isinstance(self._place, Unconfined) else "/tmp"

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

    async def close(self) -> None:
        """Close what was started. May be called more than once, and used again afterwards."""
        place, self._place = self._place, None
        if place is not None:
            await place.close()

    async def _started(self) -> Place:
        if self.where.name == NOWHERE:
            return Unconfined(self._limits)
        return await supplied(self.where, self._limits.spec(self.where.image))
