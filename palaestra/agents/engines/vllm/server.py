"""A vLLM server of ours: started on the loopback interface, watched, and ended with us."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from palaestra.agents.engines.vllm.door import KEY
from palaestra.agents.engines.vllm.options import VLLMOptions
from palaestra.envs.isolation.interpreters import package_folder
from palaestra.envs.isolation.named import environ_of, python_of
from palaestra.errors import EngineError

HOST = "127.0.0.1"
GRACE_SECONDS = 10.0
"""How long it may take to end when it is asked to."""


@dataclass
class VLLMServer:
    """`vllm serve` in a process group of its own, with a random port and a random key."""

    options: VLLMOptions
    log: Path
    """Takes what it prints."""
    python: str = ""
    """Interpreter that has vLLM; by default this one if it has, else the one that `palaestra interpreters --build vllm`
    makes."""
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    port: int = 0
    """Where it listens; chosen when it starts."""
    name: str = "policy"
    """What its OpenAI endpoints call the model."""
    _process: asyncio.subprocess.Process | None = field(default=None, repr=False)
    _leash: int = field(default=-1, repr=False)
    """Our end of its standard input: see `leash`."""

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://{HOST}:{self.port}"

    @property
    def ended(self) -> int | None:
        """Its exit status; `None` while it runs, or before it was started."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Start it; whether it serves is for whoever connects to find out.

        Raises:
            EngineError: there is no vLLM.
            EnvError: as is the interpreter that would have it.
        """
        python, environ = self._interpreter()
        self.port = free_port()
        theirs, self._leash = os.pipe()
        with self.log.open("ab") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    python,
                    *self.command(),
                    stdin=theirs,
                    stdout=log,
                    stderr=log,
                    env=self._environ(environ),
                    start_new_session=True,
                )
            except OSError as error:
                self._let_go()
                raise EngineError(f"cannot start {python}: {error.strerror or error}") from error
            finally:
                os.close(theirs)

    def command(self) -> list[str]:
        """Arguments of the interpreter."""
        arguments = dict(self.options.arguments())
        command = ["-m", "palaestra.agents.engines.vllm.launch", "--model", str(arguments.pop("model"))]
        command += ["--host", HOST, "--port", str(self.port), "--served-model-name", self.name]
        command += ["--enable-scale-out", "--middleware", "palaestra.agents.engines.vllm.door.Door"]
        command += ["--disable-uvicorn-access-log", "--disable-log-stats"]
        return command + flags(arguments)

    def last_words(self) -> str:
        """What it printed last that looks like a reason."""
        with suppress(OSError):
            lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            errors = [line for line in lines if "Error" in line]
            return (errors or lines or [""])[-1][-400:]
        return ""

    async def stop(self) -> None:
        """End it and all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # workers that outlived it
        await process.wait()
        self._let_go()

    def _let_go(self) -> None:
        leash, self._leash = self._leash, -1
        if leash >= 0:
            os.close(leash)

    def _interpreter(self) -> tuple[str, dict[str, str]]:
        """Its path, and the environment variables with which it finds our package."""
        if not self.python and not find_spec("vllm"):
            return python_of("vllm"), environ_of("vllm")
        path = os.pathsep.join(filter(None, [package_folder(), os.environ.get("PYTHONPATH", "")]))
        return self.python or sys.executable, {**os.environ, "PYTHONPATH": path}

    def _environ(self, base: Mapping[str, str]) -> dict[str, str]:
        own = {
            "VLLM_SERVER_DEV_MODE": "1",  # the endpoints for new weights; the door guards them
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        # vLLM asks for a key of its own where the user has set one; ours is then the right one, too.
        return {**self.options.environ(), **own, **base, KEY: self.key, "VLLM_API_KEY": self.key}


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """Engine arguments as `vllm serve` takes them."""
    found: list[str] = []
    for name, value in arguments.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            found.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, dict):
            found += [flag, json.dumps(value)]
        elif isinstance(value, list):
            found += [flag, *map(str, value)]
        else:
            found += [flag, str(value)]
    return found


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port
