"""How the runner gets into a sandbox: a few lines as Python's argument read the rest from stdin.

An engine writes the command of a container down many times while it starts it, so that a short one costs it much less.
The rest is sent compiled for this machine's Python, which most images have too, and as text for the others.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import marshal
import struct
from functools import cache
from pathlib import Path

from palaestra.sandboxes import runner

_FILES = Path(runner.__file__).parent
_FIRST = "start"
"""The part that has `main`."""
_HEAD = struct.Struct(">4sII")
"""Which Python it is compiled for, and the lengths of what is compiled and of the text."""
_BOOT = """
import json, marshal, os, struct, sys
from _frozen_importlib_external import MAGIC_NUMBER
def take(size):
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit()
        data += part
    return data
magic, *sizes = struct.unpack(">4sII", take(12))
coded, text = map(take, sizes)
for name, code in marshal.loads(coded) if magic == MAGIC_NUMBER else json.loads(text):
    module = sys.modules[name] = type(sys)(name)
    exec(compile(code, name, "exec", 0, True) if isinstance(code, str) else code, module.__dict__)
module.main()
"""


def runner_command(python: str = "python3") -> list[str]:
    """What is to be a sandbox's first process."""
    return [python, "-I", "-S", "-u", "-c", _BOOT]


@cache
def runner_program() -> bytes:
    """What that process is to read before all else."""
    texts = [(f"{runner.__name__}.{part}", _text(part)) for part in runner_parts()]
    codes = [(name, compile(text, name, "exec", dont_inherit=True, optimize=2)) for name, text in texts]
    coded, text = marshal.dumps(codes), json.dumps(texts).encode()
    return _HEAD.pack(importlib.util.MAGIC_NUMBER, len(coded), len(text)) + coded + text


def runner_parts() -> list[str]:
    """Names of the runner's files, each behind those that it imports."""
    found: list[str] = []

    def add(part: str) -> None:
        for name in _needed(part):
            if name not in found:
                add(name)
        found.append(part)

    add(_FIRST)
    return found


def _needed(part: str) -> list[str]:
    """Of the runner's files, those that one imports when it is run, not when its types are checked."""
    imports = [node for node in ast.parse(_text(part)).body if isinstance(node, ast.ImportFrom) and node.module]
    inner = [str(node.module).removeprefix(f"{runner.__name__}.") for node in imports]
    return [name for name in inner if (_FILES / f"{name}.py").exists()]


def _text(part: str) -> str:
    return (_FILES / f"{part}.py").read_text(encoding="utf-8")
