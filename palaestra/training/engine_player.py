"""The player of runs whose tokens another engine samples: it hands weights over, and compares before it plays."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from torch import nn

from palaestra.agents.engines.base import Engine
from palaestra.agents.engines.supervised import SupervisedEngine
from palaestra.agents.engines.vllm.adapters import Adapters
from palaestra.agents.engines.vllm.checkpoint import copy_weights, write_checkpoint, write_weights
from palaestra.agents.engines.vllm.engine import VLLMEngine
from palaestra.agents.engines.vllm.local import LocalTransport
from palaestra.agents.engines.vllm.options import VLLMOptions, largest_rank
from palaestra.agents.engines.vllm.sender import Sender
from palaestra.agents.engines.vllm.served import ServedTransport
from palaestra.agents.engines.vllm.server import VLLMServer
from palaestra.agents.engines.vllm.transport import Transport
from palaestra.agents.language import LanguageAgent
from palaestra.agents.models import LoadedModel
from palaestra.agents.opening import language_agent
from palaestra.config import AgentConfig, EngineConfig, Recipe
from palaestra.errors import ConfigError, EngineError
from palaestra.training.lora import NAME, has_lora
from palaestra.training.parity import ProbedEngine
from palaestra.training.player import InProcessPlayer, Player


class EnginePlayer(InProcessPlayer):
    """Plays with the engine of the recipe's section `engine`, which keeps weights of its own and is started once, or
    again where it dies.

    Before anybody plays, weights that have changed are handed over, and the parity probe compares engine and learner.
    Where an asynchronous trainer hands weights over itself, episodes are played with those.
    """

    def __init__(self, recipe: Recipe, loaded: LoadedModel) -> None:
        super().__init__(recipe, loaded)
        self._supervised = SupervisedEngine(self._start, restarts=recipe.trainer.restarts)
        self._engine: ProbedEngine | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="palaestra-vllm-", ignore_cleanup_errors=True)
        self._stamp: tuple[tuple[int, int], ...] = ()
        """Of the weights that the engine has."""
        self._handed = False
        """Somebody hands weights over while episodes are played, and may change the learner's in between."""
        self._handing = False
        """At this moment: the learner's weights are those that the engine is given."""
        self._kept: Mapping[str, Any] = {}
        """The weights that were handed over last, where `exchange` does not have them."""
        self._adapters = adapters_of(recipe.engine, loaded, Path(self._folder.name))

    @property
    def restarts(self) -> int:
        """How often the engine had to be started again."""
        return self._supervised.restarted

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Play on with these from now on, episodes that have begun included.

        Raises:
            TrainingError: engine and learner disagree.
        """
        engine = await self._started()
        self._handed = self._handing = True
        try:
            await engine.update_weights(weights, version)
        finally:
            self._handing = False
        if self.recipe.engine.transfer != "file":
            self._kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}
        self._stamp = stamp(self.loaded.model)

    async def park(self, episodes: Collection[str]) -> None:
        """Nothing: vLLM plays all of them at once."""

    async def close(self) -> None:
        """End the engine."""
        await self._supervised.close()
        if self._adapters is not None:
            self._adapters.clear()
        self._folder.cleanup()

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
        if present != self._stamp or engine.weight_version != version:
            self._handing = True
            try:
                await engine.update_weights(self.loaded.model.state_dict(), version)
            finally:
                self._handing = False
            self._stamp = present
        return engine

    async def _started(self) -> ProbedEngine:
        if self._engine is None:
            await self._supervised.open(0)
            self._engine = ProbedEngine(self._supervised, self.loaded.model, tolerance=self.recipe.engine.parity)
        return self._engine

    async def _start(self, version: int) -> Engine:
        """A fresh engine with the weights that were handed over last, of which the learner may be changing its own now;
        a server that runs already is handed them."""
        probed, folder = self._engine, Path(self._folder.name)
        present = not self._handed or self._handing
        if self._kept and not present:
            write_weights(exchange_of(self.recipe.engine, folder), self._kept)
        # What adapters are trained beside stays as it is, whatever the learner is doing.
        whole = present or self._adapters is not None
        engine = await start_engine(self.recipe, self.loaded, folder, present=whole, adapters=self._adapters)
        try:
            await self._renew(engine, version, present)
            if probed is not None and not self._handing:  # a hand-over compares by itself
                await probed.check_again(engine)
        except BaseException:
            await engine.close()
            raise
        return engine

    async def _renew(self, engine: VLLMEngine, version: int, present: bool) -> None:
        """Hand over what an engine that has just started does not have; the first time, `_ready` does."""
        again, served = self._engine is not None, bool(self.recipe.engine.url)
        if served and (self._adapters is not None or (again and not present)):
            await engine.reload(exchange_of(self.recipe.engine, Path(self._folder.name)), version)
        if self._adapters is not None and self._adapters.newest is not None and not present:
            await engine.update_adapter(self._adapters.newest, version)
        elif present:
            lacks = again and (served or self._adapters is not None)
            await engine.update_weights(self.loaded.model.state_dict() if lacks else {}, version)
        elif not served:
            await engine.update_weights({}, version)


def local_player(recipe: Recipe, loaded: LoadedModel) -> Player:
    """Who plays in this process, with the engine that the recipe names."""
    return InProcessPlayer(recipe, loaded) if recipe.engine.kind == "torch" else EnginePlayer(recipe, loaded)


async def start_engine(
    recipe: Recipe, loaded: LoadedModel, folder: Path, *, present: bool = True, adapters: Adapters | None = None
) -> VLLMEngine:
    """Start vLLM with the model, as `recipe.engine` says.

    Args:
        recipe: its section `engine` names something else than `torch`.
        loaded: the model; its weights are not known to a server that runs already, before they are handed over.
        folder: takes what vLLM reads, and its log.
        present: with the model's weights as they are now; else with those that were handed over last.
        adapters: writes the model's adapters, where it is trained by such.

    Raises:
        EngineError: it does not start.
    """
    config = recipe.engine
    exchange, options = exchange_of(config, folder), options_of(recipe, loaded, folder / "model")
    if present:
        write_checkpoint(exchange, loaded)
    if present and not config.url:
        write_checkpoint(options.folder, loaded)
    elif not config.url:
        copy_weights(exchange, options.folder)
    transport = _transport(config, options, folder)
    sender = None
    if config.transfer != "file":
        sender = Sender(transport, config.transfer, loaded.model, workers=config.gpus)
    return await VLLMEngine(transport, exchange, exchange=exchange, sender=sender, adapters=adapters).start()


def exchange_of(config: EngineConfig, folder: Path) -> Path:
    """Where weights are handed over, and stay until the next hand-over; `folder` as in `start_engine`."""
    return Path(config.exchange).expanduser() if config.exchange else folder / "exchange"


def adapters_of(config: EngineConfig, loaded: LoadedModel, folder: Path) -> Adapters | None:
    """Who writes the model's adapters; `None` where it has none. `folder` as in `start_engine`."""
    if not has_lora(loaded.model):
        return None
    place = exchange_of(config, folder) / f"adapters-{secrets.token_hex(4)}"
    return Adapters(place, loaded.model.peft_config[NAME])


def check_adapters(recipe: Recipe) -> None:
    """Find out before anything is loaded whether an engine can be handed the recipe's adapters.

    Raises:
        ConfigError: they are to be sent from GPU to GPU, or are too large for vLLM.
    """
    if recipe.model.lora.rank and recipe.engine.kind != "torch":
        largest_rank(recipe.model.lora.rank)
        if recipe.engine.transfer != "file":
            raise ConfigError("model.lora: vLLM reads adapters from files; leave engine.transfer at file")


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
        lora_rank=recipe.model.lora.rank,
        transfer=config.transfer,
        untie=device == "cpu" and bool(getattr(loaded.model.config, "tie_word_embeddings", False)),
    )


def stamp(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """Differs after a change of the weights: torch counts those of each tensor, and `Optimiser` and `load_weights` the
    ones that torch does not."""
    return tuple((parameter.data_ptr(), parameter._version) for parameter in model.parameters())


def _transport(config: EngineConfig, options: VLLMOptions, folder: Path) -> Transport:
    if config.kind == "vllm":
        return LocalTransport(options)
    if config.url:
        return ServedTransport(config.url, key=os.environ.get(config.key_variable, ""))
    return ServedTransport(server=VLLMServer(options, folder / "server.log", config.python))
