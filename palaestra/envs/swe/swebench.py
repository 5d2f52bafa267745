"""SWE-bench's instances and data sets of the same form: JSON lines, JSON or Parquet, with repositories or images.

Where the repositories are at hand (clones or mirrors on this machine), the files of the base commit are laid into any
sandbox, without their history. Otherwise an image by a name template has the repository in it, as SWE-bench's own have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palaestra.envs.swe.folders import open_folder
from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.mirror import checked_out
from palaestra.envs.swe.options import NAMES
from palaestra.envs.swe.swebench_rows import Row, find_files, read_rows
from palaestra.envs.tasks import SPLITS, Task, TaskSuite
from palaestra.errors import ConfigError, DataError, UnknownNameError
from palaestra.sandboxes.spec import MIB, Limits

COMMAND = ("python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors")
"""Runs the tests where nobody says otherwise; the files of the tests come after it."""
IN_IMAGE = "/testbed"
"""Where SWE-bench's images have the repository."""
LAID = "/work/repo"
"""Where a repository of the user's is laid."""
TEST_SECONDS = 1800.0
LIMITS = Limits(cpus=2.0, memory=4096 * MIB, disk=4096 * MIB, pids=512, lifetime=4 * 3600.0)
_OWN = ("path", "split_of_all", "repositories", "image", "repository", "command", "variables")
_FIELD = re.compile(r"\{(\w+)\}")
_ID = re.compile(r"[^\s/:]+(?:/[^\s:]+)*\.\w+(?:::.+)?", re.DOTALL)
"""A node id of pytest: a file, and what is in it."""
_CHANGED = re.compile(r"^(?:---|\+\+\+) (?:[ab]/)?(?P<path>[^\t\n]+)", re.MULTILINE)


def load_tasks(split: str, params: Mapping[str, Any]) -> TaskSuite:
    """The instances of one split.

    Args:
        split: `train`, `validation` or `test`; `dev` in the name of a file is `validation`.
        params: any of `Options`, and: `path`, a file with rows, or a folder with files whose names begin with a split;
            `split_of_all`, the split of a single file (default: `test`); `repositories`, a folder with clones or
            mirrors (`OWNER/NAME`, `OWNER__NAME` or `NAME`, with `.git` or without); `image`, a name with
            `{instance_id}`, `{repo}` or `{version}` in it; `repository`, the folder in the image; `command`, what runs
            the tests, a list to which their files are added; `variables`, of all commands.

    Raises:
        ConfigError: a parameter that does not exist, no `path`, or neither `repositories` nor `image`.
        DataError: there are no such files, or they hold something else.
        MissingExtraError: pyarrow is not installed, and a file is Parquet.
        UnknownNameError: no such split.
    """
    unknown = sorted(set(params) - {*NAMES, *_OWN})
    if unknown:
        raise ConfigError(
            f"swe/swebench takes no parameter {', '.join(unknown)}; it takes {', '.join((*_OWN, *NAMES))}"
        )
    if "path" not in params:
        raise ConfigError("swe/swebench needs path=FILE, JSON lines or Parquet with SWE-bench's columns")
    if not params.get("repositories") and not params.get("image"):
        raise ConfigError("swe/swebench needs repositories=FOLDER with clones, or image=NAME with {instance_id} in it")
    belongs = params.get("split_of_all", "test")
    for name in (split, belongs):
        if name not in SPLITS:
            raise UnknownNameError("split of swe/swebench", str(name)[:80], SPLITS)
    rows = [(file, row) for file in find_files(params["path"], split, belongs) for row in read_rows(file).values()]
    kept = {key: value for key, value in params.items() if key != "split_of_all"}
    return TaskSuite("swe/swebench", split, len(rows), lambda index: _task(*rows[index], split, index, kept))


def read_instance(params: Mapping[str, Any]) -> Instance:
    """The instance `params["instance"]` of the file `params["path"]`; see `load_tasks` for the others.

    Raises:
        DataError: there is no such instance, a field of it makes no sense, or its repository is not there.
    """
    path, name = params.get("path"), params.get("instance")
    if not isinstance(path, str | Path):
        raise DataError(f"path of a SWE-bench instance is a file, not {str(path)[:80]!r}")
    row = read_rows(Path(path)).get(str(name))
    if row is None:
        raise DataError(f"there is no instance {str(name)[:80]!r} in {path}")
    where = f"{path}, {row.instance_id}"
    paths = tuple(sorted({match["path"].strip() for match in _CHANGED.finditer(row.test_patch)} - {"/dev/null"}))
    for path_ in paths:
        if path_.startswith("/") or ".." in path_.split("/"):
            raise DataError(f"{where}: test_patch changes {path_[:200]!r}, which is not in the repository")
    to_fail, to_pass = _tests(row.fail_to_pass, where), _tests(row.pass_to_pass, where)
    if not to_fail:
        raise DataError(f"{where}: FAIL_TO_PASS names no test, so there is nothing to solve")
    files = sorted({test.partition("::")[0] for test in (*to_fail, *to_pass)})
    return Instance(
        name=row.instance_id,
        format="swe-bench",
        problem=row.problem_statement,
        **_place(row, params, where),
        env=_variables(params),
        limits=LIMITS,
        test_paths=paths,
        test_patch=row.test_patch,
        test_command=(*_command(params), *files),
        fail_to_pass=to_fail,
        pass_to_pass=tuple(test for test in to_pass if test not in set(to_fail)),
        gold_patch=row.patch,
        test_seconds=TEST_SECONDS,
        source=f"{row.repo} at {row.base_commit}",
    )


def _task(file: Path, row: Row, split: str, index: int, params: Mapping[str, Any]) -> Task:
    return Task(
        env="swe/Repository-v0",
        name=row.instance_id,
        split=split,
        seed=index,
        params={**params, "format": "swe-bench", "path": str(file), "instance": row.instance_id},
        kind=row.repo,
    )


def _place(row: Row, params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Where the repository is: files that are laid, or an image that has it."""
    image = _image(row, params.get("image"), where)
    repositories = params.get("repositories")
    if repositories:
        folder = checked_out(open_folder(repositories, "repositories"), row.repo, row.base_commit, where)
        return {"image": image, "repository": LAID, "files": {LAID: str(folder)}}
    repository = params.get("repository", IN_IMAGE)
    if not isinstance(repository, str) or not repository.startswith("/"):
        raise DataError(f"repository of swe/swebench is an absolute path, not {str(repository)[:80]!r}")
    return {"image": image, "workdir": repository, "repository": repository, "base_commit": row.base_commit}


def _image(row: Row, template: object, where: str) -> str:
    """The image's name: `__` in an id is `_1776_` there, because a name of an image must not have it."""
    if template is None:
        return ""
    if not isinstance(template, str):
        raise DataError(f"image of swe/swebench is a name, not {str(template)[:80]!r}")
    known = {
        "instance_id": row.instance_id.replace("__", "_1776_").lower(),
        "repo": row.repo.replace("/", "_1776_").lower(),
        "version": row.version,
    }

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise DataError(f"image of swe/swebench has {{{match[1]}}} in it; it can have {{{'}, {'.join(known)}}}")
        return known[match[1]]

    name = _FIELD.sub(value, template)
    if not re.fullmatch(r"[\w./:@+-]{1,500}", name):
        raise DataError(f"{where}: {name[:200]!r} is no name of an image")
    return name


def _tests(ids: tuple[str, ...], where: str) -> tuple[str, ...]:
    for test in ids:
        if not _ID.fullmatch(test) or ".." in test.partition("::")[0].split("/"):
            raise DataError(f"{where}: {test[:200]!r} is no node id of pytest, and other test runners are not offered")
    return tuple(sorted(set(ids)))


def _command(params: Mapping[str, Any]) -> tuple[str, ...]:
    given = params.get("command", COMMAND)
    if not isinstance(given, list | tuple) or not given or not all(isinstance(each, str) for each in given):
        raise DataError("command of swe/swebench is a list of texts, such as ['python3', '-m', 'pytest', '-q']")
    return tuple(given)


def _variables(params: Mapping[str, Any]) -> dict[str, str]:
    given = params.get("variables", {})
    if not isinstance(given, Mapping) or not all(isinstance(each, str) for pair in given.items() for each in pair):
        raise DataError("variables of swe/swebench is a mapping of texts to texts")
    return dict(given)
