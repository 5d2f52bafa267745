"""Runs on a real Ray cluster: several nodes on this machine, of which one is killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.levers import levers_recipe, register_levers, save_tiny_model

from palaestra.agents.models import LoadedModel
from palaestra.config import Recipe
from palaestra.errors import ConfigError
from palaestra.training.run import RunResult, train
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import read_trajectories

pytest.importorskip("ray", reason="ray is not installed: pip install 'palaestra[ray]'")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

from ray.cluster_utils import Cluster  # noqa: E402

from palaestra.distributed.cluster import joined  # noqa: E402
from palaestra.distributed.launch import RayLauncher  # noqa: E402
from palaestra.distributed.player import RayPlayer  # noqa: E402

ITERATIONS = 7
SHORT = [f"budget.iterations={ITERATIONS}", "evaluation.test_episodes=3", "evaluation.every=0"]
PLACED = ["cluster.workers.resources={rollout: 1}", "cluster.workers.cpus=0", "cluster.workers.count=2"]
APART = [
    *("cluster.learner.ranks=2", "cluster.learner.resources={learner: 0.5}"),
    *("cluster.engines.count=2", "cluster.engines.cpus=0", "cluster.engines.resources={engine: 1}"),
]
SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without room for workers, and two nodes with room for one each."""
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"learner": 1, "engine": 2}, **SMALL}
    )
    for _ in range(2):
        made.add_node(num_cpus=1, resources={"rollout": 1}, object_store_memory=80 << 20)
    yield made
    made.shutdown()


@pytest.fixture
def launcher(cluster: Cluster) -> RayLauncher:
    register_levers()
    return RayLauncher(cluster.address, imports=("support.ray_levers",))


def played(folder: Path) -> dict[str, list[Trajectory]]:
    found: dict[str, list[Trajectory]] = {}
    for trajectory in read_trajectories(folder / "run" / "trajectories" / "train.ptj"):
        found.setdefault(trajectory.id, []).append(trajectory)
    return found


def tokens(trajectory: Trajectory) -> list[list[int]]:
    return [node.ids for node in trajectory.nodes]


def processes(name: str) -> list[psutil.Process]:
    """Ray's processes under this one that run the actor class `name`, or what it is asked for."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith(f"ray::{name}"):
                found.append(process)
    return found


def no_actors() -> bool:
    """Ray ends processes a moment after their owner."""
    for _ in range(600):
        if not any(processes(name) for name in ("Worker", "EngineHost", "Rank", "Mailbox")):
            return True
        time.sleep(0.1)
    return False


def prepared(folder: Path) -> Path:
    folder.mkdir()
    save_tiny_model(folder / "base")
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, dict[str, list[Trajectory]]]:
    """The same run in this process, and what it played."""
    register_levers()
    folder = prepared(tmp_path_factory.mktemp("local") / "here")
    return train(levers_recipe(folder, *SHORT)), played(folder)


def assert_same(ours: dict[str, list[Trajectory]], theirs: dict[str, list[Trajectory]]) -> None:
    assert list(ours) == list(theirs), "none is lost, and their order is the same"
    assert all(len(found) == 1 for found in theirs.values()), "none is trained twice"
    for name, (trajectory,) in theirs.items():
        assert trajectory.status == "ok"
        assert tokens(trajectory) == tokens(ours[name][0])


def test_what_no_node_has_is_refused(launcher: RayLauncher, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "there")
    with pytest.raises(ConfigError, match=r"no node of the cluster has GPU 4, which cluster\.workers asks for; .*CPU"):
        launcher(levers_recipe(folder, "cluster.workers.cpus=0", "cluster.workers.gpus=4"))


def test_learner_and_engines_on_other_nodes_are_interrupted_killed_and_go_on(
    launcher: RayLauncher, here: Any, tmp_path: Path
) -> None:
    """The run is first interrupted where it was started; then learner and an engine are killed where they run."""
    folder = prepared(tmp_path / "there")
    recipe = levers_recipe(folder, *SHORT, *PLACED, *APART, "checkpoint.every=1")

    def interrupt(row: Mapping[str, Any]) -> None:
        if row["kind"] == "train" and row["iteration"] == 0:
            assert os.getpid() not in [rank.pid for rank in processes("Rank")]
            os.kill(os.getpid(), signal.SIGINT)

    stopped = launcher(recipe, progress=interrupt)
    assert stopped.stopped == "interrupted"
    assert 1 <= stopped.counters.iteration < ITERATIONS
    assert no_actors()
    doomed = ["Rank", "EngineHost"]

    def kill(row: Mapping[str, Any]) -> None:
        if row["kind"] == "train" and doomed:
            processes(doomed.pop(0))[0].kill()

    there = launcher(recipe, resume=True, progress=kill)
    assert not doomed
    assert there.stopped == "iterations"
    assert no_actors()
    assert_same(here[1], played(folder))
    assert there.evaluations["rl"].success == here[0].evaluations["rl"].success


def test_workers_take_new_weights_while_they_play(launcher: RayLauncher, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "there")
    launcher(levers_recipe(folder, *SHORT, *PLACED, "trainer.mode=async", "trainer.staleness=2"))
    assert no_actors()
    found = played(folder)
    assert sorted(found) == sorted(f"{i}/{g}/{m}" for i in range(ITERATIONS) for g in range(3) for m in range(4))
    assert all(len(each) == 1 and each[0].status == "ok" for each in found.values())
    versions = {node.weight_version for each in found.values() for node in each[0].nodes if node.sampled}
    assert len(versions) > 2, "they did not play with the first weights for ever"


def test_the_same_run_although_a_node_dies(cluster: Cluster, launcher: RayLauncher, here: Any, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "there")
    doomed = next(node for node in cluster.worker_nodes)
    killers: list[threading.Timer] = []
    players: list[RayPlayer] = []

    def kill_a_node(row: Mapping[str, Any]) -> None:
        if row["kind"] == "train" and row["iteration"] == 1:
            killers.append(threading.Timer(0.05, cluster.remove_node, (doomed, False)))
            killers[0].start()

    def open_player(recipe: Recipe, loaded: LoadedModel) -> RayPlayer:
        players.append(RayPlayer(recipe, loaded, launcher.imports))
        return players[0]

    with joined(launcher.address):
        there = train(levers_recipe(folder, *SHORT, *PLACED), progress=kill_a_node, open_player=open_player)
        killers[0].join()
        assert players[0].lost == 1
        assert no_actors()
    assert there.stopped == "iterations"
    assert_same(here[1], played(folder))
    assert there.evaluations["rl"].success == here[0].evaluations["rl"].success
