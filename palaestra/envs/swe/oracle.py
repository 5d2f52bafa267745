"""The known solution, played by the tools that agents have."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from pathlib import Path

from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.request import LONGEST, say
from palaestra.errors import DataError, EnvError

MOST_BYTES = LONGEST // 2
"""Of a folder with a solution."""
_CLOSING = "</apply_patch>"


SUBMIT = say("submit", "")


def advise(instance: Instance, position: int, commit: str) -> str:
    """The next action: the solution, then submit. A solution that does not go in is tried again on clean files.

    Args:
        instance: the task.
        position: how far the plan was followed, as `follow` counts.
        commit: at which the work began.

    Raises:
        EnvError: no solution is known.
        DataError: it is not there, or too large to be written by an agent.
    """
    put_back = f"git reset -q --hard {commit} && git clean -fdqx" if commit else "true"
    plan = (solution(instance), put_back, solution(instance), SUBMIT)
    action = plan[min(position, 3)]
    return action if action.startswith("<") else say("shell", action)


def follow(instance: Instance, position: int, commit: str, action: object, ok: bool) -> int:
    """How far the plan is followed after `action`, which went well or did not."""
    if position > 2 or not isinstance(action, str) or not (instance.gold_patch or instance.solution):
        return position
    if action.strip() != advise(instance, position, commit).strip():
        return position
    return 3 if ok and position != 1 else position + 1


def solution(instance: Instance) -> str:
    """The action that solves the task.

    Raises:
        EnvError, DataError: as `advise`.
    """
    if instance.gold_patch:
        if _CLOSING in instance.gold_patch:
            packed = base64.b64encode(instance.gold_patch.encode()).decode()
            return say("shell", f"cd {instance.repository} && base64 -d <<'END' | git apply -\n{packed}\nEND")
        return say("apply_patch", f"\n{instance.gold_patch.rstrip(chr(10))}\n")
    if instance.solution:
        return say("shell", _played(Path(instance.solution)))
    raise EnvError(f"{instance.name!r} has no known solution: there is no oracle for it")


def _played(folder: Path) -> str:
    """A script that lays the folder out and runs its `solve.sh`: alone as it is, else from an archive."""
    packed = base64.b64encode(_archive(folder)).decode()
    lines = "\n".join(packed[at : at + 200] for at in range(0, len(packed), 200))
    return (
        "solution=/solution; mkdir -p $solution 2>/dev/null && [ -w $solution ] || solution=$(mktemp -d)\n"
        f"base64 -d <<'END' | tar -xz -C $solution\n{lines}\nEND\n"
        "bash $solution/solve.sh"
    )


def _archive(folder: Path) -> bytes:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    if folder / "solve.sh" not in files:
        raise DataError(f"{folder} has no solve.sh: there is no solution to play")
    if sum(file.stat().st_size for file in files) > MOST_BYTES:
        raise DataError(f"{folder} has more than {MOST_BYTES} bytes, too many for an agent to write")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in files:
            entry = tarfile.TarInfo(file.relative_to(folder).as_posix())
            entry.size, entry.mode = file.stat().st_size, 0o755
            archive.addfile(entry, io.BytesIO(file.read_bytes()))
    return gzip.compress(buffer.getvalue(), mtime=0)
