"""Harbor's tasks on a real engine: built from their Dockerfiles, played, and judged by what their tests write."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dockerd import ask
from support.swe_episode import begun, need_docker, run

from palaestra.envs.checks.tasks import validate_all
from palaestra.envs.swe.harbor import read_instance
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import SandboxImageError

TOML = "[agent]\ntimeout_sec = 60\n[verifier]\ntimeout_sec = 30\n[environment]\nmemory_mb = 256\nstorage_mb = 64\n"
JUDGE = "mkdir -p /logs/verifier\ngrep -q 7 answer.txt && {right} || {wrong}\n"


def make_task(folder: Path, *, dockerfile: str, right: str, wrong: str) -> None:
    for name, content in {
        "task.toml": TOML,
        "instruction.md": "Write 7 into answer.txt.\n",
        "environment/Dockerfile": dockerfile,
        "environment/data/six.txt": "6\n",
        "tests/test.sh": JUDGE.format(right=right, wrong=wrong),
        "solution/solve.sh": 'cat "$(dirname "$0")/seven.txt" > answer.txt\n',
        "solution/seven.txt": "7\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Task]]:
    need_docker()
    folder = tmp_path_factory.mktemp("harbor")
    text, file = "FROM palaestra-base:test\nWORKDIR /srv/code\n", "/logs/verifier/reward"
    make_task(
        folder / "as-json",
        dockerfile=text
        + "COPY data ./data\nRUN git init -q && git -c user.name=a -c user.email=b commit -qm x --allow-empty\n",
        right=f"echo '{{\"reward\": 1}}' > {file}.json",
        wrong=f"echo '{{\"reward\": 0.25}}' > {file}.json",
    )
    make_task(folder / "as-text", dockerfile=text, right=f"echo 1 > {file}.txt", wrong=f"echo 0 > {file}.txt")
    make_task(folder / "unbuildable", dockerfile=text + "RUN exit 3\n", right="true", wrong="true")
    make_task(folder / "unjudged", dockerfile=text, right="true", wrong="true")
    made = list(load_suite("swe/harbor:test", path=str(folder), backend="docker", build=True, reward="partial"))
    yield made
    for task in made:
        ask(os.environ["DOCKER_HOST"], "DELETE", f"/images/{read_instance(task.params).image}")


@pytest.mark.timeout(300)
def test_oracles_solve_and_doing_nothing_does_not(tasks: list[Task]) -> None:
    found = {each.task: each for each in asyncio.run(validate_all(tasks, at_once=2))}
    assert found["as-text"].ok
    assert (found["as-text"].noop, found["as-text"].oracle, found["as-text"].steps) == (0.0, 1.0, 2)
    assert found["as-json"].noop == 0.25  # its tests give a part
    assert found["as-json"].wrong == "doing nothing is paid 0.25"
    assert "its Dockerfile cannot be built" in found["unbuildable"].wrong
    assert "the tests wrote no number" in found["unjudged"].wrong


@pytest.mark.timeout(300)
def test_the_agent_works_in_the_image_s_folder(tasks: list[Task]) -> None:
    async def play() -> None:
        async with begun(tasks[0]) as (env, first):
            assert "You work in /srv/code" in first.observation
            assert (await env.step("<shell>pwd; cat data/six.txt; ls /tests</shell>")).observation == "/srv/code\n6"
            await env.step("<shell>echo 7 > answer.txt; git add answer.txt; git commit -qm done</shell>")
            (sibling,) = await env.fork(1)
            try:
                assert (await sibling.verify()).success
            finally:
                await sibling.close()
            assert "+7" in (await env.step("<submit></submit>")).info["patch"]
        async with begun(tasks[1]) as (env, _):
            assert "fatal: not a git repository" in (await env.step("<shell>git status</shell>")).observation
            assert "no repository" in (await env.step("<submit></submit>")).info["patch_problem"]

    run(play(), 280)


def test_an_image_that_is_not_there_is_not_made_unasked(tasks: list[Task]) -> None:
    params = {**tasks[2].params, "build": False}

    async def play() -> None:
        with pytest.raises(SandboxImageError, match="build=true makes it"):
            async with begun(Task(env=tasks[2].env, name="x", params=params)):
                pass

    run(play(), 280)
