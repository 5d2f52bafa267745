"""The warm start: a base model that clones play of the training suite, made once and kept in the cache.

Play is that of `MixtureAgent`, on the last tasks of the training split. With the same torch on the same kind of
processor the weights are the same to the bit.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import torch

from palaestra.agents.attention import use_plain_attention
from palaestra.agents.chat import ChatFormat
from palaestra.agents.mixture import MixtureAgent
from palaestra.agents.models import LoadedModel, load_model, resolve_model
from palaestra.agents.opening import limits_of
from palaestra.agents.rollout import rollout
from palaestra.config import Recipe, WarmStartConfig
from palaestra.envs.deadline import run_to_the_end
from palaestra.envs.hashing import digest
from palaestra.envs.registry import make
from palaestra.envs.tasks import TaskSuite
from palaestra.errors import TrainingError
from palaestra.evaluation.evaluate import plan_episodes
from palaestra.files import cache_root, cannot_write
from palaestra.training.cloning import WeightedRow, cloning_batches, cloning_loss, encode_play, encode_windows
from palaestra.training.forward import PolicyModel
from palaestra.training.fresh import build_model, train_tokenizer, young_optimisers
from palaestra.training.saving import save_model
from palaestra.trajectories.record import Trajectory

Progress = Callable[[Mapping[str, Any]], None]
"""Told of rows of metrics."""
WARM_UP = 50
"""Optimiser steps over which the learning rate rises."""


def base_model(recipe: Recipe, suite: TaskSuite, progress: Progress | None = None) -> Path:
    """The directory of the recipe's base model; made now if it is not in the cache, which can take minutes.

    Raises:
        TrainingError: an episode of the expert cannot be played, or the loss is not finite.
        PalaestraError: the cache cannot be written.
    """
    folder = cache_root() / "bases" / f"{suite.name.replace('/', '-')}-{_key(recipe, suite)}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            if not (folder / "SHA256SUMS").exists():
                save_model(folder, _make(recipe, suite, progress or (lambda row: None)))
    except OSError as error:
        raise cannot_write(folder, error, "name another folder in PALAESTRA_CACHE") from error
    return folder


def _key(recipe: Recipe, suite: TaskSuite) -> str:
    """What the weights depend on."""
    wanted, agent = recipe.warm_start, recipe.agent
    start = "" if wanted.fresh else str(resolve_model(recipe.model.reference)[0].resolve())
    tasks = [msgspec.json.encode(suite[place]).decode() for place in (0, len(suite) - 1)]
    context = f"{agent.context} {agent.window_turns if agent.context == 'window' else ''}"
    told = [
        msgspec.json.encode(wanted).decode(),
        start,
        agent.system,
        context,
        recipe.tasks.max_turns,
        suite.name,
        suite.split,
    ]
    return digest(*told, len(suite), *tasks, torch.__version__)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all processes that lock `path`; a killed one leaves no lock behind."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(recipe: Recipe, suite: TaskSuite, progress: Progress) -> LoadedModel:
    wanted = recipe.warm_start
    plays = _play(recipe, suite[-wanted.episodes :], progress)
    loaded = _start(recipe, plays)
    _clone(loaded, [_cut(row, loaded) for play in plays for row in _rows(play, recipe, loaded)], wanted, progress)
    return loaded


def _rows(play: Trajectory, recipe: Recipe, loaded: LoadedModel) -> list[WeightedRow]:
    """An episode as the agent of the recipe would have had it."""
    agent, weight = recipe.agent, recipe.warm_start.observation_weight
    chat = ChatFormat.from_tokenizer(loaded.tokenizer)
    if agent.context == "window":
        system = agent.system or None
        return encode_windows(play, chat, agent.window_turns, observation_weight=weight, system=system)
    return [encode_play(play, chat, observation_weight=weight, system=agent.system or None)]


def _play(recipe: Recipe, suite: TaskSuite, progress: Progress) -> list[Trajectory]:
    wanted, plays = recipe.warm_start, list[Trajectory]()
    episodes = plan_episodes(suite, len(suite), name="warm-start")

    def done(play: Trajectory) -> None:
        plays.append(play)
        solved = sum(each.success for each in plays)
        row = {"done": len(plays), "total": len(episodes), "note": f"{100 * solved / len(plays):.0f} % solved"}
        progress({"kind": "warm start", "tag": "playing", "iteration": 0, **row})

    agent = MixtureAgent(wanted.expert, wanted.noisy)
    run_to_the_end(rollout(episodes, agent, make, limits_of(recipe), on_done=done), cancellable=True)
    order = {episode.id: place for place, episode in enumerate(episodes)}
    good = sorted((play for play in plays if play.steps and not play.error), key=lambda play: order[play.id])
    if not good:
        said = next((play.error for play in plays if play.error), "there are no tasks")
        raise TrainingError(f"no episode of the warm start can be played: {said}")
    return good


def _start(recipe: Recipe, plays: Sequence[Trajectory]) -> LoadedModel:
    if not recipe.warm_start.fresh:
        loaded = load_model(recipe.model.reference)
        use_plain_attention(loaded.model)
        return loaded
    texts = chain.from_iterable((step.observation, step.action) for play in plays for step in play.steps)
    tokenizer = train_tokenizer(texts, recipe.warm_start.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LoadedModel(build_model(len(tokenizer)), tokenizer, "base")


def _cut(row: WeightedRow, loaded: LoadedModel) -> WeightedRow:
    """As much of an episode as the model can read."""
    most = loaded.model.config.max_position_embeddings
    return WeightedRow(row.ids[:most], row.weights[:most])


def _clone(loaded: LoadedModel, rows: Sequence[WeightedRow], wanted: WarmStartConfig, progress: Progress) -> None:
    policy = PolicyModel(loaded.model, autocast=torch.bfloat16)
    optims = young_optimisers(loaded.model, wanted.lr)
    total = sum(1 for _ in cloning_batches(rows, tokens=wanted.batch_tokens, epochs=wanted.epochs))
    for step, batch in enumerate(cloning_batches(rows, tokens=wanted.batch_tokens, epochs=wanted.epochs)):
        for group in (group for optim in optims for group in optim.param_groups):
            group["lr"] = wanted.lr * min(1.0, (step + 1) / WARM_UP) * (1 - step / total)
        loss = cloning_loss(policy, batch)
        if not bool(loss.isfinite()):
            raise TrainingError(f"step {step} of the warm start: the loss is {float(loss)}; lower warm_start.lr")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        row = {"done": step + 1, "total": total, "note": f"{float(loss.detach()):.2f} nats a token"}
        progress({"kind": "warm start", "tag": "cloning", "iteration": 0, **row})
