"""Runs in verl's environment: the plug-in as verl finds it, and its functions on verl's batches.

PYTHON tests/support/verl_session.py FOLDER    writes FOLDER/result.json
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import torch  # noqa: E402
import verl  # noqa: E402, F401  imports the plug-in, or swallows why it cannot
from omegaconf import OmegaConf  # noqa: E402
from tensordict import TensorDict  # noqa: E402
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, _agent_loop_registry  # noqa: E402
from verl.trainer.ppo.v1.trainer_base import get_trainer_cls  # noqa: E402
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync  # noqa: E402
from verl.utils.dataset.rl_dataset import RLHFDataset  # noqa: E402
from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits  # noqa: E402
from verl.workers.rollout.replica import TokenOutput  # noqa: E402
from verl.workers.utils.padding import no_padding_2_padding, response_to_nested  # noqa: E402

from palaestra.agents.engines.base import Request, SamplingParams  # noqa: E402
from palaestra.agents.engines.torch_engine import TorchEngine  # noqa: E402
from palaestra.agents.models import load_model  # noqa: E402
from palaestra.errors import PalaestraError  # noqa: E402
from palaestra.integrations.verl import registered  # noqa: E402
from palaestra.integrations.verl.agent_loop import PalaestraAgentLoop  # noqa: E402
from palaestra.integrations.verl.credit import credit, trajectory_messages  # noqa: E402
from palaestra.integrations.verl.loss import IterationLoss  # noqa: E402
from palaestra.integrations.verl.recipe import algorithm_of, recipe_of, write_dataset  # noqa: E402
from palaestra.integrations.verl.trainer import PalaestraPPOTrainer, check_config  # noqa: E402
from palaestra.training.learner import Learner  # noqa: E402
from palaestra.training.rows import build_rows  # noqa: E402
from palaestra.training.seams import Moment  # noqa: E402
from palaestra.trajectories.store import decoded  # noqa: E402

RECIPE = """
name: session
tasks: {train: "alfworld/small:train", max_turns: 6}
model: {reference: palaestra-tiny}
agent: {action: text, max_tokens: 8, temperature: 1.25}
rollout: {groups: 2, group_size: 4}
optimiser: {grad_clip: 0}
budget: {iterations: 3}
algorithm: {invalid_penalty: 0.1}
"""
SPEAR = [
    "algorithm.settings.self_imitation.coef=0",
    "algorithm.settings.clip_cov={rate: 0.2, low: 0, high: .inf}",
    "algorithm.settings.widest_groups.part=1.0",
]
ALGORITHMS: dict[str, list[str]] = {"grpo": [], "epo": [], "empg": [], "aepo": [], "spear": SPEAR}


class Server:
    """`LLMServerClient.generate`, answered by our engine: verl's own servers need a GPU."""

    def __init__(self, model: Any) -> None:
        self.engine = TorchEngine(model, slots=8)

    async def generate(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        sampling = SamplingParams(
            temperature=sampling_params["temperature"],
            max_tokens=sampling_params["max_tokens"],
            stop_ids=tuple(sampling_params["stop_token_ids"]),
            seed=sampling_params["seed"],
        )
        done = await self.engine.generate(Request(prompt=prompt_ids, sampling=sampling, session=request_id))
        return TokenOutput(token_ids=done.ids, log_probs=done.logprobs)


def config_of(folder: Path, name: str, overrides: list[str]) -> Any:
    (folder / "recipe.yaml").write_text(RECIPE)
    return OmegaConf.create(
        {
            "palaestra": {"recipe": str(folder / "recipe.yaml"), "overrides": [f"algorithm.name={name}", *overrides]},
            "data": {"train_batch_size": 2},
            "actor_rollout_ref": {
                "actor": {"ppo_mini_batch_size": 2, "ppo_epochs": 1, "calculate_entropy": True},
                "rollout": {"prompt_length": 512, "response_length": 512, "temperature": 1.25},
            },
        }
    )


async def play(loaded: Any, config: Any, step: int) -> list[Any]:
    """Two groups of four, each by an agent loop of its own, all at once."""
    server = Server(loaded.model)
    loops = [
        PalaestraAgentLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=server,
            tokenizer=loaded.tokenizer,
            processor=None,
            dataset_cls=RLHFDataset,
            data_config=DictConfigWrap(OmegaConf.create({})),
            hf_model_type="llama",
        )
        for _ in range(8)
    ]
    params = {"temperature": 1.25, "logprobs": True}
    return await asyncio.gather(
        *(
            loop.run(
                params,
                extra_info={"index": at // 4 + 2 * step, "split": "train"},
                **{"uid": f"u{at // 4}", "session_id": at % 4, "global_steps": step + 1},
            )
            for at, loop in enumerate(loops)
        )
    )


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def batch_of(outputs: list[Any]) -> TensorDict:
    """verl's batch, without padding, from what the agent loops say of their episodes."""
    fields = [output.as_dict() for output in outputs]
    columns = {name: nested([f[name] for f in fields]) for name in ("prompts", "responses", "response_mask")}
    columns["rollout_log_probs"] = nested([f["rollout_log_probs"] for f in fields])
    columns["input_ids"] = nested([torch.cat((f["prompts"], f["responses"])) for f in fields])
    return TensorDict(columns, batch_size=len(fields))


def forward(model: Any, data: TensorDict, temperature: float) -> dict[str, torch.Tensor]:
    """Log-probs and entropies of every token by verl's functions, without padding, as its engines give them."""
    logprobs, entropies = [], []
    for ids in data["input_ids"].unbind():
        logits = model(input_ids=ids[None]).logits[0] / temperature
        logprobs.append(logprobs_from_logits(logits, ids.roll(-1), inplace_backward=False))
        entropies.append(entropy_from_logits(logits))
    return {"log_probs": nested(logprobs), "entropy": nested(entropies)}


def iteration(loaded: Any, config: Any, algorithm: Any, recipe: Any, step: int) -> dict[str, float]:
    """Loss and gradient in verl's columns against our learner's on the same episodes."""
    model, moment = loaded.model, Moment(step, 3, recipe.seed)
    outputs = asyncio.run(play(loaded, config, step))
    data = batch_of(outputs)
    with torch.no_grad():
        old = {name: no_padding_2_padding(x, data) for name, x in forward(model, data, 1.25).items()}
    errors = [e for o in outputs if (e := decoded(o.extra_fields["trajectory"]).error)]
    assert not errors, errors[0]
    messages = trajectory_messages([output.as_dict()["extra_fields"] for output in outputs])
    columns = {"old_log_probs": old["log_probs"], "entropy": old["entropy"]}
    found = credit(algorithm[0], messages, columns, moment, temperature=1.25)
    for name, column in {"old_log_probs": old["log_probs"], **found.columns}.items():
        data[name] = response_to_nested(column, data["response_mask"])
    loss = IterationLoss(found.terms)
    model.zero_grad()
    total = 0.0
    for part in (slice(0, 3), slice(3, 8)):  # micro-batches
        rows = list(range(8))[part]
        micro = TensorDict({k: nested([data[k].unbind()[i] for i in rows]) for k in data.keys()}, batch_size=len(rows))  # noqa: SIM118
        micro["dp_size"] = torch.ones(len(rows), dtype=torch.int64)
        micro = Micro(micro)
        value, metrics = loss(model_output=forward(model, micro, 1.25), data=micro)
        value.backward()
        total += float(value.detach())
    theirs = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    algorithm[0].observe(found.batch, moment)
    learner = Learner(model, algorithm[1], config=recipe.learner, seed=recipe.seed)
    seen: dict[str, torch.Tensor] = {}

    def no_step(lr: float) -> float:
        seen.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        learner.optimiser.clear()
        return 1.0

    model.zero_grad()
    learner.optimiser.step = no_step  # type: ignore[method-assign]
    trajectories = [decoded(message) for message in messages if message]
    rows_ = build_rows(trajectories, temperature=1.25, invalid_penalty=algorithm[1].invalid_penalty)
    update = learner.update(rows_.batch, moment)
    return {
        "gradient": max(float((theirs[n] - seen[n]).abs().max()) for n in seen),
        "gradient_scale": max(float(g.abs().max()) for g in seen.values()),
        "loss": abs(total - float(update.metrics["loss"] or 0.0)),
        "metrics": sorted(metrics),
    }


class Micro(dict):
    """A TensorDict whose `dp_size` is a number, as verl assigns it."""

    def __init__(self, data: TensorDict) -> None:
        super().__init__({name: data[name] for name in data.keys()})  # noqa: SIM118
        self["dp_size"] = 1
        self.data = data

    def select(self, *names: str) -> TensorDict:
        return self.data.select(*names)

    def get(self, name: str, default: Any = None) -> Any:
        return dict.get(self, name, default)


def refused(config: Any, *overrides: str) -> str:
    config = OmegaConf.merge(config, {"palaestra": {"overrides": list(overrides)}})
    try:
        algorithm_of(recipe_of(config))
    except PalaestraError as error:
        return str(error)
    return ""


def misconfigured(config: Any) -> str:
    try:
        check_config(OmegaConf.merge(config, {"actor_rollout_ref": {"actor": {"ppo_epochs": 2}}}))
    except PalaestraError as error:
        return str(error)
    return ""


def with_room(loaded: Any, config: Any, prompt: int, response: int) -> list[dict[str, Any]]:
    """Eight episodes where verl has so much room."""
    room = {"prompt_length": prompt, "response_length": response}
    outputs = asyncio.run(play(loaded, OmegaConf.merge(config, {"actor_rollout_ref": {"rollout": room}}), 0))
    return [
        {
            "prompt": len(output.prompt_ids),
            "response": len(output.response_ids),
            "sampled": sum(output.response_mask),
            "status": decoded(output.extra_fields["trajectory"]).status,
        }
        for output in outputs
    ]


def remembered(config: Any, algorithm: Any, folder: Path) -> dict[str, Any]:
    """The algorithm's memory in a checkpoint of verl's, of which only our part is written."""
    places = {"default_local_dir": str(folder / "checkpoints"), "resume_mode": "auto", "resume_from_path": None}
    config = OmegaConf.merge(config, {"trainer": places})
    PPOTrainerSync._save_checkpoint = lambda self: None
    PPOTrainerSync._load_checkpoint = lambda self: setattr(self, "global_steps", self.config.trainer.at)

    def trainer(at: int, **changes: Any) -> Any:
        made = object.__new__(PalaestraPPOTrainer)
        made.config, made.global_steps = OmegaConf.merge(config, {"trainer": {"at": at, **changes}}), at
        return made

    saved = trainer(4)
    saved._ours = recipe_of(config), algorithm
    saved._save_checkpoint()
    found: dict[str, Any] = {"saved": algorithm.state_dict()}
    for name, again in {
        "auto": trainer(4),
        "path": trainer(4, resume_mode="resume_path", resume_from_path=str(folder / "checkpoints/global_step_4")),
        "fresh": trainer(0),
    }.items():
        again._load_checkpoint()
        found[name] = again._algorithm()[1].state_dict()
    try:
        trainer(5)._load_checkpoint()
    except PalaestraError as error:
        found["missing"] = str(error)
    return found


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "registered": {name: f"{cls.__module__}.{cls.__name__}" for name, cls in registered().items()},
        "agent_loop": dict(_agent_loop_registry["palaestra"]),
        "trainer": get_trainer_cls("palaestra").__mro__[1].__name__,
    }
    loaded = load_model("palaestra-tiny")
    for name, overrides in ALGORITHMS.items():
        config = config_of(folder, name, overrides)
        recipe = recipe_of(config)
        pair = algorithm_of(recipe), algorithm_of(recipe)
        found[name] = [iteration(loaded, config, pair, recipe, step) for step in range(2)]
        if name == "epo":
            found["memory"] = remembered(config, pair[0], folder)
    config = config_of(folder, "grpo", [])
    found["room"] = {"long": with_room(loaded, config, 512, 50), "wide": with_room(loaded, config, 8, 512)}
    found["refused"] = {
        "spear": refused(config, "algorithm.name=spear"),
        "branching": refused(config, "algorithm.name=aepo", "algorithm.settings.aepo.branching=true"),
        "epochs": misconfigured(config),
    }
    found["dataset"] = write_dataset(recipe_of(config), folder / "train.parquet", tasks=5)
    (folder / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
