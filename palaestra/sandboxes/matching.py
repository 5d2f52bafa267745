"""Which of the replies that are written down a request gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterable

from palaestra.errors import SandboxError, nearest
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.recording import Record, key
from palaestra.sandboxes.requests import Close, CloseAll, Delete, End, Execute, Request, Run, Start

ALIVE = Exec(argv=("true",))
"""What a sandbox is asked that shall show that it lives."""
CLOSING = (Close, End, Delete, CloseAll)


class Matcher(ABC):
    """Finds the record of a request; those that close something may come at any time."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = [
            record for record in records if not isinstance(record.request, Close | End | Delete | CloseAll)
        ]

    @abstractmethod
    def find(self, request: Request, body: str, recorded: int) -> Record | None:
        """It; `None` where the files in memory may say what comes of it.

        Args:
            request: what is asked.
            body: digest of what comes with it.
            recorded: what it is asked of has this handle in the recording, or 0.

        Raises:
            SandboxError: it is a command, and nobody wrote down what comes of it.
        """

    def _unknown(self, request: Request, body: str, left: Iterable[Record]) -> SandboxError:
        asked = key(request, body)
        close = nearest(asked, {record.key for record in left}, 1)
        hint = f"the nearest that is: {_short(close[0])}" if close else "nothing like it is"
        return SandboxError(f"no reply is written down for {_short(asked)}; {hint}; record it anew, or add a reply")


class ByContent(Matcher):
    """Equal requests have equal replies; several of one content, one after the other, the last of them for good."""

    def __init__(self, records: Iterable[Record]) -> None:
        super().__init__(records)
        self._left: dict[str, deque[Record]] = defaultdict(deque)
        for record in self._records:
            self._left[record.key].append(record)

    def find(self, request: Request, body: str, recorded: int) -> Record | None:
        """See `Matcher.find`."""
        for wanted in _keys(request, body):
            if (queue := self._left.get(wanted)) is not None:
                found = next((record for record in queue if record.handle == recorded), queue[0])
                if len(queue) > 1:
                    queue.remove(found)
                return found
        if isinstance(request, Execute | Run) and not is_sign_of_life(request):
            raise self._unknown(request, body, self._records)
        return None


class InOrder(Matcher):
    """Each sandbox is asked what its like was asked when it was recorded, in the same order."""

    def find(self, request: Request, body: str, recorded: int) -> Record | None:
        """See `Matcher.find`."""
        if isinstance(request, CLOSING):
            return None
        mine = [record for record in self._records if self._concerns(record, request, recorded)]
        if mine and mine[0].key in _keys(request, body):
            self._records.remove(mine[0])
            return mine[0]
        if not isinstance(request, Execute | Run) and not any(record.handle for record in self._records):
            return None
        expected = f"next comes {_short(mine[0].key)}" if mine else "nothing more does"
        raise SandboxError(f"no reply is written down for {_short(key(request, body))}: {expected}; record it anew")

    def _concerns(self, record: Record, request: Request, recorded: int) -> bool:
        if isinstance(request, Start) or isinstance(record.request, Start):
            return isinstance(request, Start) and isinstance(record.request, Start)
        return record.handle in (0, recorded)


def is_sign_of_life(request: Request) -> bool:
    """Whether it only asks if the sandbox lives, to which nobody need write down a reply."""
    return isinstance(request, Execute) and request.command == ALIVE


def _keys(request: Request, body: str) -> tuple[str, ...]:
    """The exact one, and that of a script whatever is around it."""
    loose = (key(request, loose=True),) if isinstance(request, Execute | Run) else ()
    return (key(request, body), *loose)


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
