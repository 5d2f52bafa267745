"""What code of an agent's may use, and how much of what it prints is shown."""

from __future__ import annotations

import msgspec

from palaestra.sandboxes.spec import MIB, SandboxSpec
from palaestra.sandboxes.spec import Limits as SandboxLimits

FOLDER = "/box"
"""The work folder: of a name that no interpreter of this machine lies below."""


class CodeLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the code tools of one episode."""

    seconds: float = 30.0
    """By the clock, for one call."""
    cpu_seconds: int = 0
    """Of processor time for one cell of Python; 0: no limit but the clock's. It holds however busy the machine is."""
    memory: int = 1024 * MIB
    """Bytes: address space of each process, and where the back end can, what all of them take together."""
    disk: int = 64 * MIB
    """Bytes of files."""
    pids: int = 64
    """Processes and threads at once."""
    output: int = 4000
    """Characters of what a call prints that are shown: of more, the first and the last."""
    flood: int = MIB
    """Bytes of output after which a call is stopped."""
    code: int = 100_000
    """Characters of one call."""
    partial: bool = True
    """Whether the agent sees what a stopped call had printed. How far it came differs from run to run."""
    lifetime: float = 3600.0
    """Seconds from the first call of an episode after which its sandbox is closed."""

    def spec(self, image: str = "") -> SandboxSpec:
        """The sandbox that these limits ask for."""
        limits = SandboxLimits(
            memory=self.memory,
            pids=self.pids,
            disk=self.disk,
            seconds=self.seconds,
            lifetime=self.lifetime,
        )
        return SandboxSpec(image=image, workdir=FOLDER, env=dict(VARIABLES), limits=limits)


VARIABLES = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TZ": "UTC",
}
"""So that equal code prints the same: hashes, encodings, the order of sums, the time zone."""
