"""The player of runs whose tokens another engine samples: it hands weights over, and compares before it plays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from torch import nn

from palaestra.agents.engines.vllm.checkpoint import write_checkpoint
from palaestra.agents.engines.vllm.engine import VLLMEngine
from palaestra.agents.engines.vllm.local import LocalTransport
from palaestra.agents.engines.vllm.options import VLLMOptions
from palaestra.agents.engines.vllm.served import ServedTransport
from palaestra.agents.engines.vllm.server import VLLMServer
from palaestra.agents.engines.vllm.transport import Transport
from palaestra.agents.language import LanguageAgent
from palaestra.agents.models import LoadedModel
from palaestra.agents.opening import language_agent
from palaestra.config import AgentConfig, EngineConfig, Recipe
from palaestra.errors import EngineError
from palaestra.training.parity import ProbedEngine
from palaestra.training.player import InProcessPlayer, Player


class EnginePlayer(InProcessPlayer):
    """Plays with the engine of the recipe's section `engine`, which is started once and keeps weights of its own.

    Before anybody plays, weights that have changed are handed over, and the parity probe compares engine and learner.
    Where an asynchronous trainer hands weights over itself, episodes are played with those.
    """

    restarts = 0
    """How often the engine had to be started again: a run whose vLLM ends, ends, and can be resumed."""

    def __init__(self, recipe: Recipe, loaded: LoadedModel) -> None:
        super().__init__(recipe, loaded)
        self._engine: ProbedEngine | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._stamp: tuple[tuple[int, int], ...] = ()
        """Of the weights that the engine has."""
        self._handed = False
        """Somebody hands weights over while episodes are played."""

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Play on with these from now on, episodes that have begun included.

        Raises:
            TrainingError: engine and learner disagree.
        """
        self._handed = True
        engine = await self._started()
        await engine.update_weights(weights, version)
        self._stamp = stamp(self.loaded.model)

    async def park(self, episodes: Collection[str]) -> None:
        """Nothing: vLLM plays all of them at once."""

    async def close(self) -> None:
        """End the engine."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @asynccontextmanager
    async def _agent(
        self, episodes: int, settings: AgentConfig, version: int, weights: str = ""
    ) -> AsyncIterator[LanguageAgent]:
        engine = await self._ready(version)
        yield language_agent(
            self.loaded, settings, engine=engine, chat=self.chat, name=self.recipe.name, weights=weights
        )

    async def _ready(self, version: int) -> ProbedEngine:
        """The engine, with the learner's present weights unless somebody else hands them over."""
        engine = await self._started()
        if self._handed:
            return engine
        present = stamp(self.loaded.model)
        if present != self._stamp:
            await engine.update_weights(self.loaded.model.state_dict(), version)
            self._stamp = present
        elif engine.weight_version != version:
            await engine.engine.update_weights({}, version)
        return engine

    async def _started(self) -> ProbedEngine:
        if self._engine is None:
            self._folder = tempfile.TemporaryDirectory(prefix="palaestra-vllm-", ignore_cleanup_errors=True)
            engine = await start_engine(self.recipe, self.loaded, Path(self._folder.name))
            self._engine = ProbedEngine(engine, self.loaded.model, tolerance=self.recipe.engine.parity)
        return self._engine


def local_player(recipe: Recipe, loaded: LoadedModel) -> Player:
    """Who plays in this process, with the engine that the recipe names."""
    return InProcessPlayer(recipe, loaded) if recipe.engine.kind == "torch" else EnginePlayer(recipe, loaded)


async def start_engine(recipe: Recipe, loaded: LoadedModel, folder: Path) -> VLLMEngine:
    """Start vLLM with the model, as `recipe.engine` says.

    Args:
        recipe: its section `engine` names something else than `torch`.
        loaded: the model; its weights are not known to a server that runs already, before they are handed over.
        folder: takes what vLLM reads, and its log.

    Raises:
        EngineError: it does not start.
    """
    config = recipe.engine
    exchange = Path(config.exchange).expanduser() if config.exchange else folder / "exchange"
    options = options_of(recipe, loaded, folder / "model")
    write_checkpoint(exchange, loaded)
    if not config.url:
        write_checkpoint(options.folder, loaded)
    return await VLLMEngine(_transport(config, options, folder), exchange, exchange=exchange).start()


def options_of(recipe: Recipe, loaded: LoadedModel, folder: Path) -> VLLMOptions:
    """The recipe's settings, and the model's.

    Raises:
        EngineError: nothing says how long a context may be.
    """
    config, device = recipe.engine, loaded.model.device.type
    context = config.context or getattr(loaded.model.config, "max_position_embeddings", 0)
    if not context:
        raise EngineError("the model does not say how long a context may be; set engine.context")
    return VLLMOptions(
        folder=folder,
        device="cpu" if device == "cpu" else "cuda",
        dtype=recipe.model.dtype,
        context_length=context,
        slots=config.slots,
        cache_gib=config.cache_gib,
        memory_share=config.memory_share,
        gpus=config.gpus,
        eager=config.eager or device == "cpu",
        untie=device == "cpu" and bool(getattr(loaded.model.config, "tie_word_embeddings", False)),
    )


def stamp(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """Differs after any change of the weights: torch counts the changes of each tensor."""
    return tuple((parameter.data_ptr(), parameter._version) for parameter in model.parameters())


def _transport(config: EngineConfig, options: VLLMOptions, folder: Path) -> Transport:
    if config.kind == "vllm":
        return LocalTransport(options)
    if config.url:
        return ServedTransport(config.url, key=os.environ.get(config.key_variable, ""))
    return ServedTransport(server=VLLMServer(options, folder / "server.log", config.python))
