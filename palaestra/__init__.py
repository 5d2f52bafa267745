"""Palaestra: where language-model agents train.

Names are imported on first use, so `import palaestra` costs milliseconds and pulls in no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from palaestra.agents.opening import open_agent as open_agent
    from palaestra.config import load_recipe as load_recipe
    from palaestra.envs.checker import check_env as check_env
    from palaestra.envs.core import Env as Env
    from palaestra.envs.core import Reset as Reset
    from palaestra.envs.core import Step as Step
    from palaestra.envs.gymnasium import as_gymnasium as as_gymnasium
    from palaestra.envs.registry import EnvSpec as EnvSpec
    from palaestra.envs.registry import make as make
    from palaestra.envs.registry import register as register
    from palaestra.envs.tasks import Task as Task
    from palaestra.envs.tasks import TaskSuite as TaskSuite
    from palaestra.envs.tasks import load_suite as load_suite
    from palaestra.envs.tasks import register_suite as register_suite
    from palaestra.evaluation.evaluate import evaluate as evaluate
    from palaestra.training.run import train as train
    from palaestra.trajectories.record import Trajectory as Trajectory

_HOME = {
    "check_env": "palaestra.envs.checker",
    "Env": "palaestra.envs.core",
    "Reset": "palaestra.envs.core",
    "Step": "palaestra.envs.core",
    "as_gymnasium": "palaestra.envs.gymnasium",
    "EnvSpec": "palaestra.envs.registry",
    "make": "palaestra.envs.registry",
    "register": "palaestra.envs.registry",
    "Task": "palaestra.envs.tasks",
    "TaskSuite": "palaestra.envs.tasks",
    "load_suite": "palaestra.envs.tasks",
    "register_suite": "palaestra.envs.tasks",
    "load_recipe": "palaestra.config",
    "train": "palaestra.training.run",
    "evaluate": "palaestra.evaluation.evaluate",
    "open_agent": "palaestra.agents.opening",
    "Trajectory": "palaestra.trajectories.record",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'palaestra' has no attribute {name!r}")
    if name == "train":
        from palaestra.experiment import require_training

        require_training()
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
