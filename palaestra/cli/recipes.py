"""Recipes by name: `palaestra train demo` works wherever the package is installed."""

from __future__ import annotations

from pathlib import Path

from palaestra.errors import UnknownNameError

_PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "recipes")
"""In an installed wheel, and in a checkout."""


def recipe_paths() -> dict[str, Path]:
    """The shipped recipes by name, sorted."""
    found = {path.stem: path for folder in FOLDERS for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def find_recipe(reference: str) -> Path:
    """The file that `reference`, a path or the name of a shipped recipe, means.

    Raises:
        UnknownNameError: neither; the message has the nearest names.
    """
    path = Path(reference)
    if path.is_file():
        return path
    known = recipe_paths()
    if reference not in known:
        raise UnknownNameError("recipe", reference, known)
    return known[reference]
