"""Makes one game. A script for a process of its own, because TextWorld's generator is not safe beside threads.

Reads `{"challenge": ..., "arguments": {...}, "seed": ...}` as JSON and writes `game.z8` and `game.json` into the folder
that is its argument. It imports nothing of Palaestra's.
"""

import json
import os
import sys
from typing import Any


def generate(challenge: str, arguments: dict[str, Any], seed: int, folder: str) -> None:
    """Make and compile a game."""
    import textworld
    from textworld.challenges import CHALLENGES
    from textworld.generator import compile_game

    options = textworld.GameOptions()
    options.seeds = seed
    options.path = os.path.join(folder, "game.z8")
    options.force_recompile = True
    _, make, _ = CHALLENGES[f"tw-{challenge}"]
    compile_game(make(arguments, options), options)


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    generate(wanted["challenge"], wanted["arguments"], wanted["seed"], sys.argv[1])
