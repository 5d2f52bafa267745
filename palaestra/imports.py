"""Modules and files of the user's own, which register environments and plug-ins."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from palaestra.errors import ConfigError, PalaestraError


def import_module_or_file(name: str) -> None:
    """Import a module, found also in the working directory, or a `.py` file.

    Raises:
        ConfigError: there is no such module, or its import fails.
    """
    path = Path(name)
    folder, module = (path.parent, path.stem) if path.suffix == ".py" else (Path(), name)
    sys.path.insert(0, str(folder.resolve()))
    try:
        importlib.import_module(module)
    except PalaestraError:
        raise
    except Exception as error:
        raise ConfigError(f"cannot import {name}: {type(error).__name__}: {error}") from error
