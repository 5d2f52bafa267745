"""Task folders in Harbor's format, as Terminal-Bench and many data sets have them.

    TASK/task.toml  instruction.md  environment/Dockerfile  tests/test.sh  solution/solve.sh

The agent works in the image's working folder; then `tests/` is laid at `/tests`, `test.sh` is run, and the number that
it leaves in `/logs/verifier/reward.txt` or `reward.json` is the verdict.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palaestra.envs.swe.folders import check_folder, open_folder, read_text
from palaestra.envs.swe.harbor_file import MOST_BYTES, TaskFile, megabytes, read_task_file, resolved
from palaestra.envs.swe.images import LAST
from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.options import NAMES
from palaestra.envs.swe.tree import lay
from palaestra.envs.tasks import SPLITS, Task, TaskSuite
from palaestra.errors import ConfigError, DataError, UnknownNameError
from palaestra.files import cache_root
from palaestra.sandboxes.spec import MIB, Limits

WORKDIR = "/app"
"""Where an image says nothing."""
AGENT_SECONDS = 1800.0
"""Where a task says nothing."""
MOST_TASKS = 100_000
_OWN = ("path", "split_of_all", "image", "variables")
_NAME = re.compile(r"[\w][\w.+-]{0,199}")
_KIND = re.compile(r"[^\w .+/-]")


def load_tasks(split: str, params: Mapping[str, Any]) -> TaskSuite:
    """The tasks of one split of a folder of task folders, by name.

    Args:
        split: `train`, `validation` or `test`: folders of these names in the folder, where there is one of them.
        params: any of `Options`, and: `path`, the folder; `split_of_all`, the split of tasks that lie in no folder of a
            split (default: `test`); `image`, instead of what the tasks say; `variables`, a mapping of what tasks want
            from the environment.

    Raises:
        ConfigError: a parameter that does not exist, or no `path`.
        DataError: there is no such folder, or it has no task.
        UnknownNameError: no such split.
    """
    unknown = sorted(set(params) - {*NAMES, *_OWN})
    if unknown:
        raise ConfigError(f"swe/harbor takes no parameter {', '.join(unknown)}; it takes {', '.join((*_OWN, *NAMES))}")
    if "path" not in params:
        raise ConfigError("swe/harbor needs path=FOLDER, a folder with task folders in it")
    belongs = params.get("split_of_all", "test")
    for name in (split, belongs):
        if name not in SPLITS:
            raise UnknownNameError("split of swe/harbor", str(name)[:80], SPLITS)
    root = open_folder(params["path"], "a folder of Harbor tasks")
    divided = [name for name in SPLITS if (root / name).is_dir() and not _is_task(root / name)]
    folders = _tasks(root / split) if split in divided else [] if divided or split != belongs else _tasks(root)
    if not folders and split in (divided or [belongs]):
        raise DataError(f"{root} has no task: a folder with a task.toml in it is one")
    kept = {key: value for key, value in params.items() if key not in ("path", "split_of_all")}
    return TaskSuite("swe/harbor", split, len(folders), lambda index: _task(folders[index], split, index, kept))


def read_instance(params: Mapping[str, Any]) -> Instance:
    """The instance of the task folder `params["path"]`.

    Raises:
        DataError: it is no such folder, a file in it is missing or of another kind, or it wants what is not offered.
    """
    folder = open_folder(params.get("path"), "a Harbor task")
    file = read_task_file(folder / "task.toml")
    _check_offered(folder, file)
    for name in ("tests", "solution", "environment"):
        if (folder / name).is_symlink() or (folder / name).exists():
            check_folder(folder / name)
    script = read_text(folder / "tests" / "test.sh", MOST_BYTES)
    if not script.strip():
        raise DataError(f"{folder / 'tests' / 'test.sh'} is empty: nothing would judge the task")
    solved = (folder / "solution" / "solve.sh").is_file()
    variables = _variables(params)
    verifier = resolved(file.verifier.env, variables, f"{folder / 'task.toml'}, verifier.env")
    image, build, workdir = _image(folder, file, params)
    return Instance(
        name=folder.name,
        format="harbor",
        problem=read_text(folder / "instruction.md", MOST_BYTES),
        image=image,
        build=build,
        workdir=workdir,
        repository=workdir,
        root="writable",
        env=resolved(file.environment.env, variables, f"{folder / 'task.toml'}, environment.env"),
        network=_network(file),
        limits=_limits(folder, file),
        test_files={"/tests": str(folder / "tests")},
        test_command=(*_environment(verifier), "bash", "/tests/test.sh"),
        verdict="reward-file",
        solution=str(folder / "solution") if solved else "",
        agent_seconds=file.agent.timeout_sec or AGENT_SECONDS,
        test_seconds=file.verifier.timeout_sec,
        source=str(folder),
    )


def _task(folder: Path, split: str, index: int, params: Mapping[str, Any]) -> Task:
    metadata = read_task_file(folder / "task.toml").metadata
    kind = next((value for key in ("difficulty", "category") if isinstance(value := metadata.get(key), str)), "")
    return Task(
        env="swe/Repository-v0",
        name=folder.name,
        split=split,
        seed=index,
        params={**params, "format": "harbor", "path": str(folder)},
        kind=_KIND.sub("", kind)[:80],
    )


def _tasks(root: Path) -> list[Path]:
    """Task folders directly in a folder, by name; or the folder itself."""
    if _is_task(root):
        return [root]
    try:
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    except OSError as error:
        raise DataError(f"cannot read {root}: {error.strerror}") from None
    found = [root / name for name in names if _is_task(root / name)]
    if len(found) > MOST_TASKS:
        raise DataError(f"{root} has more than {MOST_TASKS} tasks, which is the limit")
    for folder in found:
        if not _NAME.fullmatch(folder.name):
            raise DataError(f"{str(folder)[:500]!r}: a task's name has letters, digits and .+-_ only")
    return found


def _is_task(folder: Path) -> bool:
    return (folder / "task.toml").is_file()


def _check_offered(folder: Path, file: TaskFile) -> None:
    if file.steps:
        raise DataError(f"{folder} is a task in several steps, which are not played here")
    if file.environment.gpus:
        raise DataError(f"{folder} wants a GPU in its sandbox, which none has")
    for name in ("docker-compose.yaml", "docker-compose.yml"):
        if (folder / "environment" / name).exists():
            raise DataError(f"{folder} wants several containers ({name}), which are not offered")


def _image(folder: Path, file: TaskFile, params: Mapping[str, Any]) -> tuple[str, str, str]:
    """The image's name, the folder that it is built from, and its working folder."""
    chosen, given = params.get("image"), file.environment.docker_image
    if chosen is not None and not isinstance(chosen, str):
        raise DataError(f"image of a Harbor task is a name, not {str(chosen)[:80]!r}")
    dockerfile = folder / "environment" / "Dockerfile"
    text = read_text(dockerfile, MOST_BYTES) if dockerfile.is_file() else ""
    workdir = _workdir(text)
    name = chosen if chosen is not None else given or ""
    if name or chosen is not None:
        if not name or not params.get("build"):
            return name, "", workdir
        context = lay({"Dockerfile": f"FROM {_image_name(name)}\n".encode()}, _generated(name))
    elif text:
        context = folder / "environment"
    else:
        raise DataError(f"{folder} has neither environment/Dockerfile nor a docker_image in its task.toml")
    return f"palaestra-harbor:{_digest(context)}", str(context), workdir


def _image_name(name: str) -> str:
    if not re.fullmatch(r"[\w./:@+-]{1,500}", name):
        raise DataError(f"{name[:200]!r} is no name of an image")
    return name


def _generated(image: str) -> Path:
    """A folder of the cache for what is built on top of an image."""
    return cache_root() / "swe" / "images" / hashlib.blake2b(image.encode(), digest_size=10).hexdigest()


def _workdir(dockerfile: str) -> str:
    """The working folder of the last stage; what depends on variables is not looked into."""
    folder = ""
    for line in dockerfile.splitlines():
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip().strip("\"'")
        if word.upper() == "FROM":
            folder = ""
        elif word.upper() == "WORKDIR" and rest and "$" not in rest:
            folder = posixpath.normpath(posixpath.join(folder or "/", rest))
    return folder if folder.strip("/") else WORKDIR


def _digest(folder: Path) -> str:
    """Of all that an image is built from, so that another Dockerfile makes another image."""
    digest = hashlib.blake2b(LAST.encode(), digest_size=10)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _network(file: TaskFile) -> tuple[str, ...]:
    """Hosts that are named; a task that wants the whole net gets none of it."""
    hosts = [host.strip().lower().rstrip(".") for host in file.environment.allowed_hosts]
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", host):
            raise DataError(f"allowed_hosts of a Harbor task are names of hosts, not {host[:80]!r}")
    return tuple(f"{host}:{port}" for host in sorted(set(hosts)) for port in (80, 443))


def _limits(folder: Path, file: TaskFile) -> Limits:
    wanted, where = file.environment, f"{folder / 'task.toml'}, environment"
    memory = megabytes(wanted.memory_mb, wanted.memory, 2048, f"{where}.memory")
    storage = megabytes(wanted.storage_mb, wanted.storage, 10240, f"{where}.storage")
    return Limits(
        cpus=float(wanted.cpus),
        memory=memory * MIB,
        disk=storage * MIB,
        pids=512,
        lifetime=max(3600.0, 2 * ((file.agent.timeout_sec or AGENT_SECONDS) + file.verifier.timeout_sec)),
    )


def _variables(params: Mapping[str, Any]) -> dict[str, str]:
    given = params.get("variables", {})
    if not isinstance(given, Mapping) or not all(isinstance(each, str) for pair in given.items() for each in pair):
        raise DataError("variables of Harbor tasks is a mapping of texts to texts")
    return dict(given)


def _environment(variables: Mapping[str, str]) -> tuple[str, ...]:
    return ("env", *(f"{name}={value}" for name, value in variables.items())) if variables else ()
