"""Runs on a real Ray cluster: several nodes on this machine, of which one is killed."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.levers import levers_recipe, register_levers, save_tiny_model

from palaestra.errors import ConfigError
from palaestra.training.run import train
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import read_trajectories

pytest.importorskip("ray", reason="ray is not installed: pip install 'palaestra[ray]'")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

from ray.cluster_utils import Cluster  # noqa: E402

from palaestra.distributed.launch import RayLauncher  # noqa: E402

SHORT = ["budget.iterations=4", "evaluation.test_episodes=3", "evaluation.every=0"]
PLACED = ["cluster.workers.resources={rollout: 1}", "cluster.workers.cpus=0", "cluster.workers.count=2"]
SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without room for workers, and two nodes with room for one each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"learner": 1}, **SMALL})
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


def actors() -> list[str]:
    """Processes of ours that Ray runs."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if line.startswith("ray::") and "Worker" in line]


def test_the_same_run_also_when_a_node_dies(cluster: Cluster, launcher: RayLauncher, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("here", "there")}
    for folder in folders.values():
        folder.mkdir()
        save_tiny_model(folder / "base")
    here = train(levers_recipe(folders["here"], *SHORT))
    doomed = next(node for node in cluster.worker_nodes)
    killers: list[threading.Timer] = []

    def kill_a_node(row: Mapping[str, Any]) -> None:
        if row["kind"] == "train" and row["iteration"] == 1:
            killers.append(threading.Timer(0.1, cluster.remove_node, (doomed, False)))
            killers[0].start()

    there = launcher(levers_recipe(folders["there"], *SHORT, *PLACED), progress=kill_a_node)
    killers[0].join()
    assert actors() == []
    assert there.stopped == "iterations"
    ours, theirs = played(folders["here"]), played(folders["there"])
    assert list(ours) == list(theirs), "none is lost, and their order is the same"
    assert all(len(found) == 1 for found in theirs.values()), "none is trained twice"
    for name, (trajectory,) in theirs.items():
        assert trajectory.status == "ok"
        assert tokens(trajectory) == tokens(ours[name][0])
    assert there.evaluations["rl"].success == here.evaluations["rl"].success


def test_what_no_node_has_is_refused(launcher: RayLauncher, tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"no node of the cluster has GPU 4, which cluster\.workers asks for; .*CPU"):
        launcher(levers_recipe(tmp_path, "cluster.workers.cpus=0", "cluster.workers.gpus=4"))
