"""Recipes: nested typed configuration from YAML plus `key.sub=value` overrides.

`load_recipe("recipes/demo.yaml", ["seed=1", "optimiser.lr=1e-4"])` returns a `Recipe` in which every value is present.
Unknown keys and values of the wrong type are refused with their full path, unknown keys also with the nearest name.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml

from palaestra.errors import ConfigError, nearest

Positive = Annotated[int, msgspec.Meta(ge=1)]
NonNegative = Annotated[int, msgspec.Meta(ge=0)]
LARGEST = sys.float_info.max
"""Upper bound of floats that must be finite. (A lower bound refuses what is not a number.)"""
NonNegativeFloat = Annotated[float, msgspec.Meta(ge=0.0, le=LARGEST)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0.0, le=LARGEST)]
NonNegativeOrInfinite = Annotated[float, msgspec.Meta(ge=0.0)]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
BelowOne = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section: immutable, by keyword only, unknown keys refused."""


class LoraConfig(Config, frozen=True, kw_only=True):
    """Low-rank adapters, which are trained in place of the weights."""

    rank: NonNegative = 0
    """Of each; 0 trains the weights themselves."""
    alpha: NonNegativeFloat = 0.0
    """An adapter's product is scaled by alpha over rank; 0 stands for twice the rank."""
    targets: tuple[str, ...] = ()
    """Names of the linear modules that get one, as `q_proj`; empty for all but the output head."""


class ModelConfig(Config, frozen=True, kw_only=True):
    """The policy's weights."""

    reference: str = "palaestra-tiny"
    """`palaestra-tiny`, a transformers model directory, a GGUF file or a run directory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights in memory. Resuming is bit-exact in either."""
    threads: NonNegative = 0
    """CPU threads of torch; 0 leaves its default. Another number gives other last bits of every sum."""
    device: str = "cpu"
    """A torch device."""
    lora: LoraConfig = LoraConfig()
    """Adapters in place of the weights."""


class WarmStartConfig(Config, frozen=True, kw_only=True):
    """A base model made before training: it clones play of the training suite's own expert, good and bad.

    Made once and kept in the cache, so that runs which differ in anything else begin with the same weights.
    """

    episodes: NonNegative = 0
    """Training tasks that are played, from the end of the suite; 0 for no warm start."""
    fresh: bool = True
    """Begin with a new tokenizer and random weights instead of `model.reference`."""
    vocabulary: Annotated[int, msgspec.Meta(ge=512, le=65_536)] = 2048
    """Most tokens of a new tokenizer."""
    expert: Fraction = 0.35
    """Share of episodes by the expert alone."""
    noisy: Fraction = 0.4
    """Share by the expert with 10 to 80 % random commands in between; the rest is random play."""
    epochs: Positive = 2
    """Passes over the episodes."""
    batch_tokens: Positive = 4096
    """Most padded tokens of an optimiser step."""
    lr: PositiveFloat = 4e-3
    """Of Muon and AdamW, linear to zero."""
    observation_weight: Fraction = 0.1
    """Of what the environment wrote, in the loss; the commands weigh 1."""

    def __post_init__(self) -> None:
        """Shares are of one whole."""
        if self.expert + self.noisy > 1:
            raise ValueError("expert and noisy are shares of all episodes, so that their sum is at most 1")


class LevelConfig(Config, frozen=True, kw_only=True):
    """One level of a curriculum."""

    suite: str
    """Suite reference."""
    params: dict[str, Any] = {}
    """Parameters of the suite, `difficulty` for example."""


class CurriculumConfig(Config, frozen=True, kw_only=True):
    """Levels from easy to hard, and when training goes from one to the next. Without levels there is no curriculum."""

    levels: tuple[LevelConfig, ...] = ()
    """What training draws from, instead of `tasks.train`; at least two."""
    raise_at: Fraction = 0.7
    """Success at the present level from which on the next one is played."""
    lower_at: Fraction = 0.1
    """Success at the present level down to which the one before is played again."""
    window: Positive = 64
    """Last episodes of a level whose mean success counts."""
    least: Positive = 32
    """Episodes of a level before it may be left."""
    earlier: BelowOne = 0.2
    """Part of an iteration's tasks that come from the levels before the present one, so that they are not forgotten."""


class TasksConfig(Config, frozen=True, kw_only=True):
    """What is played, as suite references `NAME[/LEVEL]:SPLIT`; `alfworld:test[300:600]` takes some of the tasks."""

    train: str = ""
    """Suite that training draws from; empty where there is a curriculum."""
    curriculum: CurriculumConfig = CurriculumConfig()
    """Suites that training draws from, one after the other."""
    validation: str = ""
    """Suite of the evaluations during training; empty for none."""
    test: str = ""
    """Suite of the final evaluation; empty for none."""
    params: dict[str, Any] = {}
    """Parameters of all three suites; every suite has `progress: true`, paid by the rise of the best score."""
    max_turns: Positive = 30
    """Most turns of one episode; the episode is truncated there."""


class AgentConfig(Config, frozen=True, kw_only=True):
    """How the model plays."""

    action: Literal["text", "choice", "message"] = "text"
    """`text` samples commands freely and takes the first line, `choice` constrains them to the admissible ones,
    `message` takes all that was written: reasoning, tool calls, code."""
    context: Literal["full", "window"] = "full"
    """`full` keeps every turn in the prompt, `window` only the last `window_turns`."""
    window_turns: Positive = 4
    """Turns that a window keeps."""
    max_tokens: Positive = 32
    """Most tokens of one action, the end token included."""
    temperature: PositiveFloat = 1.0
    """Divides the logits, when sampling and in every log-prob and entropy of training."""
    system: str = ""
    """System message; empty for none."""


class RolloutConfig(Config, frozen=True, kw_only=True):
    """How episodes are collected."""

    groups: Positive = 8
    """Tasks an iteration."""
    group_size: Positive = 8
    """Episodes of each task, which differ in the sampling seed only; their mean where `knapsack` shares them out."""
    concurrency: Positive = 256
    """Most episodes that run at once."""
    retries: NonNegative = 1
    """How often a failed episode is started again."""
    reset_seconds: PositiveFloat = 120.0
    """Deadline of one reset."""
    act_seconds: PositiveFloat = 600.0
    """Deadline of one completion."""
    step_seconds: PositiveFloat = 120.0
    """Deadline of one environment step."""


@dataclass(frozen=True, slots=True)
class _Own:
    value: Any


def own(value: Any) -> Any:
    """A default that the named algorithm may replace, see `PRESETS`."""
    return _Own(value)


PRESETS: dict[str, dict[str, Any]] = {
    "dr_grpo": {"normalise": "mean", "aggregation": "dr-grpo-mean"},
    "rloo": {"normalise": "rloo"},
    "reinforce": {"normalise": "none", "clip_low": 1.0, "clip_high": math.inf, "dual_clip": math.inf},
    "dapo": {"clip_high": 0.28, "aggregation": "token-mean", "plugins": ("uniform_groups", "overlong")},
    "asym_clip": {"clip_low": 0.05},
    "gspo": {"policy_loss": "gspo", "clip_low": 3e-4, "clip_high": 4e-4, "dual_clip": math.inf},
    "gigpo": {"plugins": ("gigpo",)},
    "dr_bot": {
        **{"normalise": "mean", "aggregation": "dr-grpo-mean", "clip_high": 0.28, "dual_clip": 10.0},
        "plugins": ("well_formed", "widest_groups"),
    },
    "spear": {
        **{"normalise": "mean", "aggregation": "dr-grpo-mean", "clip_high": 0.28, "dual_clip": 10.0},
        "plugins": ("well_formed", "outcome_scale", "tool_reward", "widest_groups", "clip_cov", "self_imitation"),
    },
    "ppo": {"plugins": ("ppo",), "normalise": "none", "aggregation": "token-mean"},
    "epo": {"plugins": ("epo",)},
    "empg": {"plugins": ("empg",), "aggregation": "token-mean"},
    "hpt": {
        **{"normalise": "mean", "clip_low": 1.0, "clip_high": math.inf, "dual_clip": math.inf},
        **{"entropy_coeff": 0.001, "plugins": ("hpt",)},
    },
    "knapsack": {"plugins": ("knapsack",)},
    "spo": {"plugins": ("spo_tracker",)},
    "aepo": {"plugins": ("aepo",), "policy_loss": "entropy_balanced", "aggregation": "token-mean"},
}
"""By name of the algorithm, the keys of `AlgorithmConfig` whose default is another one there."""


class EngineConfig(Config, frozen=True, kw_only=True):
    """Who samples the model's tokens."""

    kind: Literal["torch", "vllm", "vllm-server"] = "torch"
    """`torch`: the embedded engine, on the learner's own weights. `vllm`: vLLM in this process, which must have it.
    `vllm-server`: vLLM behind HTTP: the server at `url`, or one of ours."""
    url: str = ""
    """Of a `vllm-server` that runs already, started as the guide says; empty: start one on this machine."""
    key_variable: str = "PALAESTRA_VLLM_KEY"
    """Environment variable that holds what the server at `url` wants as a bearer token."""
    python: str = ""
    """Interpreter that starts our own server; empty: this one if it has vLLM, else what
    `palaestra interpreters --build vllm` made."""
    exchange: str = ""
    """Folder for new weights that the engine's workers see, too; empty: a temporary one of this machine."""
    context: NonNegative = 0
    """Most tokens of prompt and completion together; 0: what the model was made for."""
    compile: bool = False
    """Of the embedded engine: have torch compile what computes one token of every running request. The first such call
    takes up to minutes. vLLM compiles by itself, see `eager`."""
    slots: Positive = 64
    """Requests that are computed at once."""
    cache_gib: PositiveFloat = 2.0
    """Key-value cache on a CPU, GiB."""
    memory_share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.4
    """Share of a GPU's memory for the engine, beside the learner."""
    gpus: Positive = 1
    """Tensor-parallel ranks."""
    eager: bool = False
    """No CUDA graphs and no compilation: starts sooner, decodes slower. On a CPU always so."""
    transfer: Literal["file", "nccl", "ipc", "sparse_nccl"] = "file"
    """How new weights reach the engine: through `exchange`, or from GPU to GPU by vLLM's transfer engines, of which
    `sparse_nccl` sends only numbers that have changed."""
    parity: PositiveFloat = 1e-3
    """After each hand-over of weights, engine and learner may differ by this much (nats) on fixed prompts; beyond it
    the run stops. bfloat16 wants about 0.3."""


class AlgorithmConfig(Config, frozen=True, kw_only=True):
    """The base that all algorithms share, and the plug-ins of this one; their settings are under `settings.NAME`.

    The defaults of the keys from `normalise` to `plugins` and of `entropy_coeff` are GRPO's. An algorithm may have
    others, which `palaestra algorithms` lists; a key that the recipe gives is as the recipe says.
    """

    name: str = "epo"
    """An entry of `palaestra.training.algorithms.ALGORITHMS`."""
    normalise: Literal["std", "mean", "rloo", "none"] = own("std")
    """Group advantage: divided by the standard deviation (GRPO, the default), mean only (Dr.GRPO), leave one out
    (RLOO), or the return as it is (REINFORCE)."""
    policy_loss: str = own("clip")
    """An entry of `palaestra.training.policy_loss.POLICY_LOSSES`: `clip` (default), `gspo`, `span_ratio` or
    `entropy_balanced`."""
    clip_low: Fraction = own(0.2)
    """Ratios below 1 - clip_low are clipped; 0.2 by default."""
    clip_high: NonNegativeOrInfinite = own(0.2)
    """Ratios above 1 + clip_high are clipped; 0.2 by default, 0.28 is DAPO's clip-higher, `.inf` clips none."""
    dual_clip: Annotated[float, msgspec.Meta(gt=1.0)] = own(3.0)
    """Bound of the ratio where the advantage is negative; 3 by default, `.inf` for none."""
    aggregation: Literal[
        "token-mean",
        "seq-mean-token-sum",
        "seq-mean-token-mean",
        "seq-mean-token-sum-norm",
        "dr-grpo-mean",
        "traj-turn-token",
    ] = own("seq-mean-token-mean")
    """How the policy loss of tokens becomes one number; `seq-mean-token-mean` by default."""
    plugins: tuple[str, ...] = own(())
    """Entries of `palaestra.training.plugin.PLUGINS`, applied in this order at every seam; `palaestra algorithms` lists
    them. Naming some replaces those of the algorithm."""
    weighting: Literal["trajectory", "row"] = "trajectory"
    """What counts once in a group's statistics."""
    singleton: Literal["zero", "raw"] = "zero"
    """Advantage of a group of one: 0, or the reward itself."""
    aggregation_constant: NonNegativeFloat = 0.0
    """C of the two modes that have one, in tokens; 0 takes the most that an episode can sample, `max_turns` times
    `max_tokens`."""
    entropy_coeff: NonNegativeFloat = own(0.0)
    """Weight of a plain entropy bonus; 0 for none. Note that verl-agent's "GRPO" baselines silently have 0.001."""
    kl_coeff: NonNegativeFloat = 0.0
    """Weight of the KL to the model before training; 0 for none (and no reference model in memory)."""
    kl_kind: Literal["k1", "k2", "k3", "abs"] = "k3"
    """Estimator of that KL."""
    invalid_penalty: NonNegativeFloat = 0.0
    """Subtracted from the return for each action that the environment refused; 0.1 in verl-agent."""
    drop_uniform_groups: bool | None = None
    """Leave episodes without any advantage (those whose groups all got the same reward) out of the forward pass. Their
    policy gradient is zero, so this saves time only; null does it wherever no term (entropy, KL) has a gradient there,
    true insists."""
    settings: dict[str, dict[str, Any]] = {}
    """Settings of single plug-ins by name; those of others than `plugins` are checked but stay unused, so that
    `algorithm.name=grpo` alone turns an EPO recipe into its baseline."""

    def __post_init__(self) -> None:
        """Put the algorithm's own defaults where nothing was given."""
        own = PRESETS.get(self.name, {})
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, _Own):
                msgspec.structs.force_setattr(self, field, own.get(field, value.value))


class OptimiserConfig(Config, frozen=True, kw_only=True):
    """AdamW and its schedule."""

    lr: PositiveFloat = 3e-4
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up, from `lr` down to `floor * lr` at the last planned iteration."""
    warmup: Fraction = 0.0
    """Part of the planned iterations over which the rate rises linearly from 0."""
    floor: Fraction = 0.0
    """Last rate over `lr`."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled; of matrices only."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.95)
    """Of AdamW."""
    grad_clip: NonNegativeFloat = 1.0
    """Largest gradient norm; 0 for no clipping."""


class LearnerConfig(Config, frozen=True, kw_only=True):
    """How an update is computed; apart from `mini_batches`, `epochs` and the precision nothing here changes it."""

    micro_batch_tokens: Positive = 2048
    """Padded tokens of one forward pass. Denominators are those of the mini-batch, so this is a matter of memory and
    speed: 2048 keeps a small model in a CPU's caches (8192 took 1.5 to 1.9 times as long); a GPU wants more."""
    mini_batches: Positive = 1
    """Optimiser steps per pass over an iteration's trajectories."""
    epochs: Positive = 1
    """Passes over them."""
    old_logprobs: Literal["learner", "rollout"] = "learner"
    """Who tells the log-probs before the update: a scoring pass (free with one mini-batch and one epoch), or the
    engine that sampled."""
    autocast: Literal["float32", "bfloat16"] = "float32"
    """Precision of the matrix products of the forward and backward pass."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    compile: bool = False
    """Compile the decoder layers with torch.compile; the first updates then take minutes."""
    offload: Literal["none", "optimiser", "activations", "both"] = "none"
    """What waits in the CPU's memory while it is not computed with: the optimiser's moments, the activations that the
    backward pass needs, or both."""
    merge_prefixes: Literal["never", "episode", "always"] = "never"
    """Which rows share the forward pass of the tokens that they begin with: those of one episode whose context was cut
    and of episodes that branched off one another (`episode`), or all, as the members of a group their prompt
    (`always`). Changes results by rounding only."""
    shard: bool = False
    """Under `torchrun`: each rank keeps its part of weights, gradients and optimiser (FSDP2), beside one whole copy of
    the weights to play with. Without it each rank has all of them."""
    packing: bool = False
    """Let short rows fill the room behind long ones, in place of padding. Changes results by rounding only."""


class BudgetConfig(Config, frozen=True, kw_only=True):
    """When training ends."""

    iterations: Positive = 100
    """Planned iterations; schedules and EPO's phase weight refer to it."""
    max_seconds: NonNegativeFloat = 0.0
    """Most seconds of rollouts and updates, evaluations excluded; 0 for no limit."""


class EvaluationConfig(Config, frozen=True, kw_only=True):
    """Evaluations during and after training."""

    every: NonNegative = 10
    """Iterations between evaluations on the validation suite, the first before training; 0 for none."""
    episodes: Positive = 64
    """Tasks of such an evaluation, from the front of the suite."""
    test_episodes: NonNegative = 200
    """Tasks of the evaluations on the test suite, before and after training; 0 for none."""
    temperature: NonNegativeFloat | None = None
    """Of the sampling; 0 takes the likeliest token, null is the agent's own temperature."""


class PlaceConfig(Config, frozen=True, kw_only=True):
    """What one process of a cluster asks of the node that it is placed on; Ray finds the node."""

    cpus: NonNegativeFloat = 1.0
    """CPU cores."""
    gpus: NonNegativeFloat = 0.0
    """GPUs; a part of one shares it."""
    resources: dict[str, PositiveFloat] = {}
    """Resources that nodes were given by name, as in `{rollout: 1}` for `ray start --resources '{"rollout": 8}'`."""


class WorkersConfig(PlaceConfig, frozen=True, kw_only=True):
    """Processes that play: environments, agents, and their engine unless `engines` has some."""

    count: NonNegative = 0
    """How many; 0: as many as the cluster has room for, beside all else that is on it, when the run begins."""
    episodes: NonNegative = 0
    """Most episodes that one plays at once; 0 divides `rollout.concurrency` among them."""


class EnginesConfig(PlaceConfig, frozen=True, kw_only=True):
    """Processes that sample for the workers, where environments and engines are to be on different nodes."""

    count: NonNegative = 0
    """How many; 0: each worker has an engine of its own."""


class LearnerPlaceConfig(PlaceConfig, frozen=True, kw_only=True):
    """Where the learner runs."""

    cpus: NonNegativeFloat = 0.0
    """CPU cores; without cores, GPUs and resources a single rank stays in the process that was started."""
    ranks: Positive = 1
    """Processes that share the learner; each asks for the above."""
    restarts: NonNegative = 3
    """How often they may be lost; each time they go on from the newest checkpoint."""

    @property
    def here(self) -> bool:
        """Whether the learner is in the process that was started."""
        return self.ranks == 1 and not (self.cpus or self.gpus or self.resources)


class ClusterConfig(Config, frozen=True, kw_only=True):
    """How a run with `--launcher ray` is spread over a cluster; nothing here changes what is learned."""

    workers: WorkersConfig = WorkersConfig()
    """What plays."""
    engines: EnginesConfig = EnginesConfig()
    """What samples, if not the workers."""
    learner: LearnerPlaceConfig = LearnerPlaceConfig()
    """What learns."""
    deaths: Positive = 5
    """Episodes whose workers died this often while they played them are given up, as errors."""
    start_seconds: PositiveFloat = 300.0
    """How long there may be no worker at all, at the start and later, and the learner may take to find its places."""
    silence_seconds: PositiveFloat = 300.0
    """A worker or engine that has not answered for so long is killed, and what it was asked for is done elsewhere."""


class TrainerConfig(Config, frozen=True, kw_only=True):
    """Whether rollouts and updates take turns, or go on side by side. Algorithms do not know the difference."""

    mode: Literal["sync", "async"] = "sync"
    """`sync`: play, learn, repeat. `async`: episodes are played with weights of their own while the learner learns."""
    staleness: NonNegative = 1
    """Most updates that may lie between the weights that sampled a token and those that learn from it, when `async`. A
    group begins only when it can still be used in time; nothing is thrown away. 0 gives the result of `sync`."""
    quorum: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    """Part of a group's episodes that must be over where the learner would otherwise wait for it. The others are
    parked, and learned from once they are over, against the rewards of the whole group; their tokens may be older."""
    correct: bool = True
    """Where tokens may be of older weights, add the plug-in `mismatch` (truncated importance sampling) to an algorithm
    that does not have it; its settings are under `algorithm.settings.mismatch`."""
    restarts: NonNegative = 3
    """How often a request may find the engine broken and be asked again of another one, with the newest weights, before
    its error becomes that of its episode. Requests are counted one by one."""


class CheckpointConfig(Config, frozen=True, kw_only=True):
    """What a killed run goes on from."""

    every: Positive = 5
    """Iterations between checkpoints; the last iteration always has one."""
    keep: Positive = 2
    """How many of the newest stay on disk."""


class Recipe(Config, frozen=True, kw_only=True):
    """One experiment."""

    name: str
    """Names the run."""
    tasks: TasksConfig
    """What is played."""
    out: str = ""
    """Run directory; empty for `runs/NAME`."""
    seed: NonNegative = 0
    """Everything random derives from it."""
    tensorboard: bool = False
    """Write TensorBoard events too."""
    model: ModelConfig = ModelConfig()
    """The policy's weights."""
    warm_start: WarmStartConfig = WarmStartConfig()
    """What they learn before training."""
    agent: AgentConfig = AgentConfig()
    """How the model plays."""
    rollout: RolloutConfig = RolloutConfig()
    """How episodes are collected."""
    engine: EngineConfig = EngineConfig()
    """Who samples tokens."""
    algorithm: AlgorithmConfig = AlgorithmConfig()
    """What is computed from them."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """AdamW and its schedule."""
    learner: LearnerConfig = LearnerConfig()
    """How an update is computed."""
    budget: BudgetConfig = BudgetConfig()
    """When training ends."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluations during and after training."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """What a killed run goes on from."""
    trainer: TrainerConfig = TrainerConfig()
    """Whether rollouts wait for updates."""
    cluster: ClusterConfig = ClusterConfig()
    """How it is spread over machines, where it is."""

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(self.out) if self.out else Path("runs") / self.name


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also reads `1e-4` as a number (YAML 1.1 wants `1.0e-4`)."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)

C = TypeVar("C", bound=msgspec.Struct)


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `key.sub=value` overrides to it.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or does not fit; the message has the path of the key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe {path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    return parse_recipe(text, overrides, source=str(path))


def parse_recipe(text: str, overrides: Iterable[str] = (), *, source: str = "recipe") -> Recipe:
    """Like `load_recipe`, from YAML text."""
    data = _parse_yaml(text, source)
    if not isinstance(data, dict):
        raise ConfigError(f"{source} is not a recipe: it must be a mapping of sections")
    for override in overrides:
        apply_override(data, override)
    return convert(data, Recipe)


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one `key.sub=value`, the value in YAML, in nested dictionaries."""
    key, equals, value = override.partition("=")
    if not (equals and key.strip()):
        raise ConfigError(f"override {override!r} is not KEY.SUB=VALUE, as in optimiser.lr=1e-4")
    *sections, last = key.strip().split(".")
    for name in sections:
        inner = data.setdefault(name, {})
        if inner is None:
            inner = data[name] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"override {override!r}: {name} is a value, not a section")
        data = inner
    data[last] = _parse_yaml(value, f"override {override!r}")


def convert(data: Any, struct: type[C], *, path: str = "") -> C:
    """`data` (nested dictionaries) as `struct`; `path` is prepended to the keys in messages.

    Raises:
        ConfigError: an unknown key (with the nearest name) or a value of the wrong type or range.
    """
    _refuse_unknown(data, struct, path)
    try:
        return msgspec.convert(data, struct, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(_readable(str(error), path)) from None


def to_dict(config: msgspec.Struct) -> dict[str, Any]:
    """Nested dictionaries and lists of plain values, defaults included, as YAML reads them back."""
    plain: dict[str, Any] = _listed(msgspec.to_builtins(config))
    return plain


def _listed(value: Any) -> Any:
    """With lists for tuples, which are not equal to what is read back where no type says tuple."""
    if isinstance(value, dict):
        return {key: _listed(each) for key, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value


def to_yaml(config: msgspec.Struct) -> str:
    """The resolved configuration, defaults included; `parse_recipe` reads it back to an equal one."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, default_flow_style=False)


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        line = str(error).replace("\n", " ")
        raise ConfigError(f"{source} is not YAML: {line}") from None


def _refuse_unknown(data: Any, struct: type[msgspec.Struct], path: str) -> None:
    if not isinstance(data, Mapping):
        return
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    for key, value in data.items():
        full = f"{path}.{key}" if path else str(key)
        if key not in fields:
            close = nearest(str(key), fields)
            known = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(fields)}"
            raise ConfigError(f"unknown key {full!r}; {known}")
        kind = fields[key].type
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            _refuse_unknown(value, kind, full)


def _readable(message: str, path: str) -> str:
    """msgspec's `Expected ... - at `$.a.b`` with the path in front."""
    what, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".")
    full = ".".join(part for part in (path, key) if part) or "recipe"
    what = what.replace(f"`float` <= {LARGEST}", "a finite `float`")
    return f"{full}: {what[:1].lower()}{what[1:]}"
