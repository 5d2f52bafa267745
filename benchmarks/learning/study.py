"""What the study consists of: `study.yaml`, and the jobs that follow from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import yaml

from palaestra.errors import ConfigError, DataError

STUDY = Path(__file__).with_name("study.yaml")
"""The study that the documentation shows."""


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `study.yaml`."""

    seeds: int
    """Runs of each setting in each environment; seeds are 0, 1, ..."""
    environments: dict[str, str]
    """Name -> recipe beside `study.yaml`."""
    settings: dict[str, list[str]]
    """Name -> what it changes in the recipe."""
    folder: Path = STUDY.parent
    """Where the file is."""

    @property
    def data(self) -> Path:
        """One JSON file a finished run, `ENVIRONMENT/SETTING-SEED.json`."""
        return self.folder / "data"


class Job(msgspec.Struct, frozen=True):
    """One run."""

    environment: str
    setting: str
    seed: int
    recipe: Path
    overrides: tuple[str, ...]
    data: Path
    """Where the records of the study are."""

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.environment}/{self.setting}-{self.seed}"

    @property
    def record(self) -> Path:
        """Where its data are kept."""
        return self.data / f"{self.name}.json"

    def directory(self, runs: Path) -> Path:
        """Its run directory."""
        return runs / self.name

    def conditions(self) -> dict[str, Any]:
        """What must be the same for a finished run to stand."""
        return {"recipe": yaml.safe_load(self.recipe.read_text("utf-8")), "overrides": list(self.overrides)}


def load_study(path: Path = STUDY) -> Study:
    """The study.

    Raises:
        ConfigError: the file is not one.
    """
    try:
        content = {**yaml.safe_load(path.read_text("utf-8")), "folder": str(path.parent)}
        return msgspec.convert(content, Study, dec_hook=lambda kind, value: kind(value))
    except (OSError, yaml.YAMLError, msgspec.ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def jobs(
    study: Study, environments: list[str] | None = None, settings: list[str] | None = None, seeds: int | None = None
) -> list[Job]:
    """The runs, seed by seed, so that a study that is stopped early has all settings alike.

    Raises:
        ConfigError: there is no such environment or setting.
    """
    for kind, wanted, known in (
        ("environment", environments, study.environments),
        ("setting", settings, study.settings),
    ):
        if unknown := sorted(set(wanted or ()) - set(known)):
            raise ConfigError(f"the study has no {kind} {unknown[0]!r}; it has {', '.join(known)}")
    return [
        Job(
            environment,
            setting,
            seed,
            study.folder / study.environments[environment],
            tuple(study.settings[setting]),
            study.data,
        )
        for seed in range(study.seeds if seeds is None else seeds)
        for environment in (environments or study.environments)
        for setting in (settings or study.settings)
    ]


def finished(job: Job) -> bool:
    """Whether its data are there.

    Raises:
        DataError: they are of a run under other conditions, or damaged.
    """
    if not job.record.exists():
        return False
    try:
        known = json.loads(job.record.read_text("utf-8"))["conditions"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{job.record} is no record of a run ({error}); remove it to run {job.name} again") from error
    if known != job.conditions():
        raise DataError(f"{job.record} was made with other settings; remove it to run {job.name} again")
    return True
