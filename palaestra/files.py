"""Files that no death of the process and no full disk can spoil: replaced as a whole, or only ever appended to."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from palaestra.errors import PalaestraError


def cache_root() -> Path:
    """Where things are kept that can be made again: `$PALAESTRA_CACHE`, or `~/.cache/palaestra`."""
    named = os.environ.get("PALAESTRA_CACHE")
    return (Path(named).expanduser() if named else Path.home() / ".cache" / "palaestra").absolute()


def replace_text(path: Path, text: str) -> None:
    """Write `text` to `path`: whoever looks, and whatever happens, there is the old content or the new one.

    Raises:
        PalaestraError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError, mend: str = "") -> PalaestraError:
    """What to raise when writing `path` failed."""
    return PalaestraError(f"cannot write {path}: {error.strerror or error}{'; ' if mend else ''}{mend}")


class GrowingFile:
    """A file that is appended to, and cut back to an earlier length where a run goes back in time.

    What `append` was given is with the operating system when it returns, so that it survives the death of the process;
    `sync` makes it survive the death of the machine. The folder is made where it does not exist.

    Raises:
        PalaestraError: the file cannot be opened or written, for example on a full disk. A failed `append` leaves it
            as it was before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
            self.raw = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        except OSError as error:
            raise self._error(error) from error

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self.raw.fileno()).st_size

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end, or nothing."""
        start, view = self.size, memoryview(data)
        try:
            while view:
                view = view[self.raw.write(view) or 0 :]
        except OSError as error:
            with suppress(OSError):  # shrinking works on a full disk; a device has no length
                self.raw.truncate(start)
            raise self._error(error) from error

    def cut(self, size: int) -> None:
        """Drop everything behind the first `size` bytes."""
        try:
            self.raw.truncate(size)
        except OSError as error:
            raise self._error(error) from error

    def sync(self) -> None:
        """Return when everything appended is on the disk itself."""
        try:
            os.fsync(self.raw.fileno())
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """May be called more than once."""
        self.raw.close()

    def _error(self, error: OSError) -> PalaestraError:
        return cannot_write(self.path, error, "what was written before is safe")
