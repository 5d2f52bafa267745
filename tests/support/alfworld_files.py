"""Game files in the layout of ALFWorld's own data, written from our games by a Python that has `alfworld`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from palaestra.envs.alfworld.game import Game
from palaestra.envs.isolation.interpreters import package_folder


def write_games(python: str, root: Path, split: str, games: list[Game]) -> list[Path]:
    """Their folders, below `root/json_2.1.1/split`."""
    folders = [_folder(root, split, number, game) for number, game in enumerate(games)]
    wanted = [[str(folder), msgspec.to_builtins(game)] for folder, game in zip(folders, games, strict=True)]
    environ = {**os.environ, "PYTHONPATH": package_folder()}
    subprocess.run([python, __file__], input=json.dumps(wanted), env=environ, text=True, check=True, timeout=120)
    return folders


def _folder(root: Path, split: str, number: int, game: Game) -> Path:
    goal = game.goal
    return root / "json_2.1.1" / split / f"{goal.kind}-{goal.object}-None-{goal.place}-{number}" / "trial_T2019_000"


def main() -> None:
    """Write the games that standard input holds; where `alfworld` is."""
    from palaestra.envs.alfworld.original_pddl import game_data

    for folder, plain in json.load(sys.stdin):
        game = msgspec.convert(plain, Game)
        Path(folder).mkdir(parents=True)
        data = {**game_data(game), "solvable": True, "walkthrough": ["look"]}
        Path(folder, "game.tw-pddl").write_text(json.dumps(data))
        trajectory = {"task_type": game.goal.kind, "pddl_params": {}, "turk_annotations": {"anns": []}}
        Path(folder, "traj_data.json").write_text(json.dumps(trajectory))


if __name__ == "__main__":
    main()
