"""Engines and images for tests: what DOCKER_HOST names, engines of a test's own, and images made of the base."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest
from support.dockerd import BASE, Engine, ask, load_base

LEASE = "palaestra.lease"


def engine_host() -> str:
    """Address of an engine that has the base image; the test skips where there is none."""
    host = os.environ.get("DOCKER_HOST", "unix:///run/docker.sock")
    try:
        status, _ = ask(host, "GET", f"/images/{BASE}/json", timeout=10.0)
    except OSError as error:
        pytest.skip(f"no Docker engine at {host} ({error}): set DOCKER_HOST")
    if status != 200:
        pytest.skip(f"no image {BASE}: run python tests/support/dockerd.py image")
    return host


def own_engine(folder: Path, data: Path | None = None) -> Engine:
    """An engine of the test's own, with the base image; the test skips where none can be started."""
    if os.geteuid() != 0:
        pytest.skip("an engine of its own takes root")
    if shutil.which("dockerd") is None:
        pytest.skip("no dockerd: install docker.io")
    engine = Engine(folder, data)
    engine.start()
    load_base(engine.host)
    return engine


def containers(host: str) -> list[str]:
    """Names of all containers."""
    _, answer = ask(host, "GET", "/containers/json?all=1")
    return [each["Names"][0].removeprefix("/") for each in json.loads(answer)]


def things(host: str, lease: str) -> list[str]:
    """What an engine has that carries a lease's id."""
    mark = quote(json.dumps({"label": [f"{LEASE}={lease}"]}))
    found = []
    for path, key, name in (
        ("containers/json?all=1&", "", "Id"),
        ("volumes?", "Volumes", "Name"),
        ("images/json?", "", "Id"),
    ):
        answer = json.loads(ask(host, "GET", f"/{path}filters={mark}")[1])
        found += [each[name] for each in (answer[key] or [] if key else answer)]
    return found


def make_image(host: str, name: str, files: dict[str, tuple[bytes, int]], *changes: str) -> str:
    """The base image with files in it: path -> content and mode, owned by root. Gives its name."""
    _, answer = ask_json(host, "POST", "/containers/create", {"Image": BASE, "Cmd": ["true"]})
    container = json.loads(answer)["Id"]
    assert ask(host, "PUT", f"/containers/{container}/archive?path=/", archive(files))[0] == 200
    repository, tag = name.split(":")
    query = "&".join(
        [f"container={container}", f"repo={repository}", f"tag={tag}", *(f"changes={quote(c)}" for c in changes)]
    )
    assert ask_json(host, "POST", f"/commit?{query}", {})[0] == 201
    ask(host, "DELETE", f"/containers/{container}")
    return name


def make_bare_image(host: str, name: str) -> str:
    """An image with a single file in it, and no program. Gives its name."""
    repository, tag = name.split(":")
    path = f"/images/create?fromSrc=-&repo={repository}&tag={tag}"
    assert ask(host, "POST", path, archive({"etc/motd": (b"hello", 0o644)}))[0] == 200
    return name


def remove_image(host: str, name: str) -> None:
    """Remove an image."""
    ask(host, "DELETE", f"/images/{name}?force=1")


def archive(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar of root's files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def ask_json(host: str, method: str, path: str, body: object) -> tuple[int, bytes]:
    """As `ask`, with a body in JSON."""
    return ask(host, method, path, json.dumps(body).encode(), content="application/json")
