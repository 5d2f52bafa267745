"""`python absent.py MODULES ARGUMENT ...`: the command line where some modules (comma-separated) are not installed.

Nothing is replaced: what finds modules and installed packages no longer finds these.
"""

import sys
from collections.abc import Iterator
from typing import Any


class Without:
    """A finder that does not find some."""

    def __init__(self, finder: Any, absent: set[str]) -> None:
        self.finder, self.absent = finder, absent

    def find_spec(self, name: str, *where: Any) -> Any:
        return None if name.partition(".")[0] in self.absent else self.finder.find_spec(name, *where)

    def find_distributions(self, *context: Any) -> Iterator[Any]:
        find = getattr(self.finder, "find_distributions", None)
        return (found for found in (find(*context) if find else ()) if found.name not in self.absent)


if __name__ == "__main__":
    absent = set(sys.argv[1].split(","))
    sys.meta_path[:] = [Without(finder, absent) for finder in sys.meta_path]
    from palaestra.cli.main import main

    sys.exit(main(sys.argv[2:]))
