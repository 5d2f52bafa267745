"""Teachers: models that are not trained, and say how likely they find what the policy wrote.

Only the log-prob of the taken token is asked for, so a teacher must read the same tokens; at the policy's temperature
and over the ids that the policy could choose from, as only then the two are comparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from palaestra.agents.models import LoadedModel, load_model, resolve_model
from palaestra.errors import ConfigError, TrainingError
from palaestra.training.batch import Batch
from palaestra.training.providers import Run, Score
from palaestra.training.seams import NOTHING, Moment, Need

ANY = ""
"""In place of a kind of task: every kind without a teacher of its own."""


@dataclass(slots=True)
class Teachers:
    """One model, or one for each kind of task. Without any, the model before training teaches."""

    column: str
    """In `Batch.extra`."""
    paths: Mapping[str, str]
    """Model references by kind of task; see `ANY`."""
    key: str
    """Where the recipe names them, for messages."""
    further: frozenset[Need] = NOTHING
    """What its readers need beside the column."""
    models: dict[str, Any] = field(default_factory=dict)
    """By kind; filled by `attach`."""

    @property
    def requires(self) -> frozenset[Need]:
        """The reference where that teaches."""
        return self.further if self.paths else self.further | {"ref_logprob"}

    def check(self) -> None:
        """Raises:
        ConfigError: nobody teaches.
        UnknownNameError: a teacher is no model on this machine.
        """
        if not self.paths:
            raise ConfigError(f"{self.key} is empty: name the model that teaches, a directory or a run")
        for path in self.paths.values():
            resolve_model(path)

    def attach(self, run: Run) -> None:
        """Load them.

        Raises:
            CheckpointError: a teacher cannot be loaded.
            ConfigError: it reads other tokens than the policy.
        """
        model, loaded = run.recipe.model, dict[str, Any]()
        for path in self.paths.values():
            if path not in loaded:
                teacher = load_model(path, dtype=model.dtype, device=model.device)
                require_same_tokens(run.loaded, teacher, f"{self.key}: {path}")
                loaded[path] = teacher.model
        self.models = {kind: loaded[path] for kind, path in self.paths.items()}

    def __call__(self, batch: Batch, moment: Moment, score: Score) -> Mapping[str, Tensor]:
        """The one column.

        Raises:
            TrainingError: a task is of a kind without a teacher, or nothing was attached.
        """
        if not self.paths:
            assert batch.ref_logprob is not None
            return {self.column: batch.ref_logprob}
        if not self.models:
            raise TrainingError(f"{self.key}: the teacher was not loaded; attach the algorithm's parts to a run")
        column = torch.zeros(batch.shape)
        for kind, rows in self._rows(batch).items():
            if kind not in self.models:
                raise TrainingError(f"{self.key} names no teacher for tasks of kind {kind!r}, and none for all others")
            column += score(batch, self.models[kind], rows)
        return {self.column: column}

    def _rows(self, batch: Batch) -> dict[str, Tensor]:
        """The kept rows of each teacher, by its kind."""
        found: dict[str, list[int]] = {}
        for row in batch.rows.tolist():
            kind = batch.episodes[int(batch.traj[row])].kind if batch.episodes else ANY
            kind = ANY if kind not in self.paths and ANY in self.paths else kind
            found.setdefault(kind, []).append(row)
        return {kind: torch.tensor(rows) for kind, rows in found.items()}


def paths_of(teacher: str, teachers: Mapping[str, str]) -> dict[str, str]:
    """`Teachers.paths` from the two settings that plug-ins have."""
    return {**teachers, **({ANY: teacher} if teacher else {})}


def require_same_tokens(student: LoadedModel, teacher: LoadedModel, name: str) -> None:
    """Raises:
    ConfigError: a token id means something else to `teacher`, or nothing; `name` begins the message.
    """
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours != theirs:
        odd = min(token for token, _ in ours.items() ^ theirs.items())
        raise ConfigError(
            f"{name} has another vocabulary than {student.name}: {odd!r} is {theirs.get(odd, 'no token')} there and "
            f"{ours.get(odd, 'no token')} here; a teacher must share the tokenizer of the policy"
        )
    rows = len(teacher.model.get_output_embeddings().weight)
    if rows <= max(ours.values()):
        raise ConfigError(f"{name} gives logits for {rows} tokens only, fewer than the tokenizer has ({len(ours)})")
