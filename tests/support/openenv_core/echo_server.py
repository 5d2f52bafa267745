"""A real openenv-core server: `python echo_server.py FOLDER` writes its port to FOLDER/port."""

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_app


class EchoAction(Action):
    message: str


class EchoObservation(Observation):
    echoed: str
    length: int


class Echo(Environment):
    """Says what it is told; three messages end the episode, and `good` is worth 1."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self.said = 0
        self.seed = None

    def reset(self, seed=None, episode_id=None, greeting="ready", **kwargs):
        self.said, self.seed = 0, seed
        return EchoObservation(echoed=f"{greeting} {seed}", length=0)

    def step(self, action, timeout_s=None, **kwargs):
        if action.message == "fail":
            raise RuntimeError("it was asked to fail")
        if action.message != "on":
            self.said += 1
        reward = 1.0 if action.message == "good" else None
        return EchoObservation(echoed=action.message, length=len(action.message), reward=reward, done=self.said >= 3)

    @property
    def state(self):
        return State(episode_id="one", step_count=self.said)


async def main(folder: Path) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # who reads the port may come before the server runs
    app = create_app(Echo, EchoAction, EchoObservation, max_concurrent_envs=64)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    unfinished = folder / "port.new"
    unfinished.write_text(str(listener.getsockname()[1]))
    unfinished.rename(folder / "port")
    await server.serve(sockets=[listener])


asyncio.run(main(Path(sys.argv[1])))
