"""`python -m palaestra.envs.verifiers.listing`: which rows a taskset has, asked in the interpreter that has verifiers.

Standard input is a `Chosen` as JSON, standard output `{"rows": [[index, name, split], ...], "own_splits": ...}` or
`{"error": ...}`; whatever the taskset prints goes to standard error.
"""

from __future__ import annotations

import os
import sys

import msgspec

from palaestra.envs.verifiers.chosen import Chosen
from palaestra.envs.verifiers.taskset import loaded
from palaestra.errors import PalaestraError


def main() -> None:
    """List."""
    answers = os.dup(1)
    os.dup2(2, 1)
    choice = msgspec.json.decode(sys.stdin.buffer.read(), type=Chosen)
    try:
        taskset = loaded(choice, judges=True)  # nothing is graded here
        said: dict[str, object] = {"rows": taskset.listed(), "own_splits": taskset.own_splits}
    except PalaestraError as error:
        said = {"error": str(error)}
    with os.fdopen(answers, "wb") as out:
        out.write(msgspec.json.encode(said))


if __name__ == "__main__":
    main()
