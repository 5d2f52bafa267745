"""Steps per second over OpenEnv's protocol on an echo: ours against openenv-core's, with 1 and 16 sessions."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from palaestra import make
from palaestra.envs.isolation.venvs import Recipe

_CLIENTS = (1, 16)
_HERE = Path(__file__).parent
_THEIRS = _HERE.parents[1] / "tests" / "support" / "openenv_core" / "echo_server.py"


def measure(seconds: float) -> dict[str, float | str]:
    """In turns, the better of two; the stock is left out where its interpreter is not built."""
    venv = Recipe(("openenv-core==0.3.0",), sys.executable, sys.version).venv
    found: dict[str, float] = {}
    with ExitStack() as stack:
        ours = stack.enter_context(_our_server())
        theirs = stack.enter_context(_their_server(venv.python)) if venv.ready else ""
        for _ in range(2):
            rates = {f"ours_{n}": asyncio.run(_ours(ours, n, seconds / 8)) for n in _CLIENTS}
            if theirs:
                rates |= _stock(venv.python, theirs, seconds / 8)
            found = {name: max(rate, found.get(name, 0.0)) for name, rate in rates.items()}
    if theirs:
        found["stock_steps_per_second"] = found["stock_16"]
        found["ratio"] = found["ours_16"] / found["stock_16"]
    return {"steps_per_second": found["ours_16"], **found}


def _stock(python: Path, url: str, seconds: float) -> dict[str, float]:
    # -P, because modules beside the script are called math and the like.
    command = [python, "-P", _HERE / "_openenv_core.py", url, str(seconds), *map(str, _CLIENTS)]
    said = subprocess.run(command, capture_output=True, check=True, timeout=seconds * 4 + 120).stdout
    return {f"stock_{n}": float(rate) for n, rate in zip(_CLIENTS, said.split(), strict=True)}


async def _ours(url: str, clients: int, seconds: float) -> float:
    end = (began := time.monotonic()) + seconds
    return sum(await asyncio.gather(*(_play(url, end) for _ in range(clients)))) / (time.monotonic() - began)


async def _play(url: str, end: float) -> int:
    steps = 0
    async with make("openenv/Remote-v0", url=url) as env:
        await env.reset(seed=1)
        while time.monotonic() < end:
            await env.step("on")
            steps += 1
    return steps


@contextmanager
def _our_server() -> Iterator[str]:
    arguments = ["serve", "bench/Echo-v0", "--import", str(_HERE / "_openenv_echo.py"), "--protocol", "openenv"]
    command = [sys.executable, "-m", "palaestra", *arguments, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split(" at ")[1].split()[0]
        finally:
            process.kill()


@contextmanager
def _their_server(python: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, _quiet(python, _THEIRS, folder) as process:
        while not (port := Path(folder, "port")).exists() and process.poll() is None:
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{port.read_text()}"
        finally:
            process.kill()


def _quiet(*command: str | Path) -> subprocess.Popen[bytes]:
    """Their server logs a traceback for each client that leaves."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
