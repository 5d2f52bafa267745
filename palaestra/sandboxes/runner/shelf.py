"""Trees of files by way of a shelf: a file that this process shares with others, which need not be spoken to."""

from __future__ import annotations

import json
import os

from palaestra.sandboxes.runner.files import write_all
from palaestra.sandboxes.runner.filing import Filing
from palaestra.sandboxes.runner.frames import FRAME
from palaestra.sandboxes.runner.task import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from palaestra.sandboxes.runner.frames import Frame, Header
    from palaestra.sandboxes.runner.loop import Runner


class Packing(Task):
    """A tree of files on its way to the shelf: a file that this process and the other side share."""

    def __init__(
        self, runner: Runner, id: int, shelf: int, frames: Generator[Frame, None, None], after: Callable[[], None]
    ) -> None:
        self._runner, self._id, self._shelf, self._frames, self._after = runner, id, shelf, frames, after
        os.ftruncate(shelf, 0)
        os.lseek(shelf, 0, os.SEEK_SET)

    def pump(self) -> bool:
        try:
            header, payload = next(self._frames)
            text = json.dumps(header).encode()
            write_all(self._shelf, FRAME.pack(len(text), len(payload)) + text)
            write_all(self._shelf, payload)
        except StopIteration:
            self.cancel()
            self._runner.link.send({"id": self._id, "kind": "done"})
        except (OSError, ValueError) as error:
            self.cancel()
            self._runner.refuse(self._id, error)
        else:
            return True
        return False

    def cancel(self) -> None:
        self._runner.drop(self._id)
        self._frames.close()
        self._after()


class Unpacking(Filing):
    """A tree of files that comes from another's shelf."""

    def __init__(self, runner: Runner, header: Header, given: int) -> None:
        super().__init__(runner, header)
        self._frames = stored(given)

    def pump(self) -> bool:
        try:
            header, payload = next(self._frames)
            self._take(header["e"], payload)
        except StopIteration:
            self.finish()
            return False
        except (OSError, ValueError) as error:
            self._fail(error)
            return False
        return True


def stored(file: int) -> Iterator[Frame]:
    """Frames that were written to a file."""
    at = 0
    while True:
        start = os.pread(file, FRAME.size, at)
        if len(start) < FRAME.size:
            return
        header, payload = FRAME.unpack(start)
        at += FRAME.size + header + payload
        text = os.pread(file, header, at - header - payload)
        yield json.loads(text), os.pread(file, payload, at - payload)
