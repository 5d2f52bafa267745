"""Wheels made on the spot, so that pip has something to install without a network."""

from __future__ import annotations

import zipfile
from pathlib import Path

import msgspec


def write_wheel(folder: Path, name: str, version: str = "1.0", *, needs: str = "") -> Path:
    """A wheel of a package of one empty module; `needs` is a requirement of it."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def offline_index(folder: Path) -> dict[str, str]:
    """Environment variables that leave pip nothing but `folder`, which gets a stand-in of what every worker needs."""
    folder.mkdir(exist_ok=True)
    write_wheel(folder, "msgspec", msgspec.__version__)
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}
