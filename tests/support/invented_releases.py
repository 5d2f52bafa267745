"""An invented package with two releases, to make tasks of: a release with notes, and hunks good and bad."""

from __future__ import annotations

from support.package_index import Files, sdist, wheel_of_installed

from palaestra.envs.swe.packages import Source

WHEELS = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
RUNNER = tuple(f"{name}-1.0-py3-none-any.whl" for name in WHEELS)
SOURCE = Source(
    project="alpha",
    licence="MIT",
    split="train",
    versions=("1.0", "1.1"),
    source=("src/alpha",),
    path="src",
    notes="CHANGES.md",
)

_SPACE = "".join(f"SPACE_{n} = {n}\n" for n in range(9))
_OLD = f"""def double(n):
    return n + n + 0


{_SPACE}

def half(n):
    if n == 2:
        return 1
    return n / 2


{_SPACE}

COMMENT = 1
NOTE = 2
"""
_NEW = _OLD.replace("return n + n + 0\n", "if n == 'a':\n        return 'aa'\n    return n + n\n").replace(
    "if n == 2:\n        return 1\n    return n / 2", "if n % 2 == 0:\n        return n // 2\n    return n / 2"
).replace("COMMENT = 1\nNOTE = 2", "COMMENT = 3\nNOTE = 4")  # fmt: skip
_MANY = "\n".join(f"def test_space_{n}():\n    assert alpha.SPACE_1 == 1\n" for n in range(25))
_TESTS = f"""import pytest
import alpha

{_MANY}

def test_half():
    assert alpha.half(3) == 1.5

@pytest.mark.xfail
def test_of_the_future():
    assert alpha.double(1) == 3
"""
_NEW_TESTS = f"""{_TESTS}
@pytest.mark.parametrize("n", [4, 6])
def test_half_is_whole(n):
    assert isinstance(alpha.half(n), int)

def test_no_network():
    import socket
    with pytest.raises(OSError):
        socket.create_connection(("192.0.2.1", 80), timeout=5)
"""


def released() -> Files:
    """What the index has: both releases, and pytest as it is installed here."""
    files = sdist("alpha", "1.0", _tree("1.0", _OLD, _TESTS)) | sdist("alpha", "1.1", _tree("1.1", _NEW, _NEW_TESTS))
    for name in WHEELS:
        files |= wheel_of_installed(name)
    return files


def _tree(version: str, code: str, tests: str) -> dict[str, str]:
    return {
        "src/alpha/__init__.py": code,
        "tests/test_alpha.py": tests,
        "CHANGES.md": "# Changes\n\n## 1.1\n\n- Halves of even numbers are whole.\n\n## 1.0\n\n- The first.\n",
        "PKG-INFO": f"Name: alpha\nVersion: {version}\n",
    }
