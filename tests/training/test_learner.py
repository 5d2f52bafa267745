import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.levers import tiny_model
from transformers import GPT2Config, GPT2LMHeadModel

from palaestra.config import LearnerConfig, OptimiserConfig, parse_recipe
from palaestra.errors import ConfigError, TrainingError
from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.checkpoint import fingerprint
from palaestra.training.forward import Flat, micro_batches, ranges
from palaestra.training.learner import Learner, Update
from palaestra.training.optimiser import Optimiser, learning_rate
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Node, StepRecord, Trajectory

MOMENT = Moment(1, 10)


def episodes(count: int = 8, *, constrained: bool = False, seed: int = 0) -> list[Trajectory]:
    """Random talk in groups of four, of uneven lengths; groups 0 and 1 differ in reward, later ones do not."""
    random = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=random))

    trajectories = []
    for number in range(count):
        nodes: list[Node] = []
        steps: list[StepRecord] = []
        for _ in range(draw(1, 4)):
            nodes.append(Node(ids=[draw(1, 300) for _ in range(draw(1, 9))]))
            ids = [draw(1, 300) for _ in range(draw(1, 5))]
            allowed = [sorted({token, draw(1, 300), draw(1, 300)}) for token in ids] if constrained else None
            guess = [-5.0] * len(ids)
            nodes.append(Node(ids=ids, sampled=True, logprobs=guess, entropies=[5.0] * len(ids), allowed=allowed))
            steps.append(StepRecord(observation="", action="", reward=0, completion=len(nodes) - 1))
        reward = float(number % 2) if number < 8 else 1.0
        group = str(number // 4)
        trajectories.append(
            Trajectory(id=str(number), env="", task="", group=group, total_reward=reward, nodes=nodes, steps=steps)
        )
    return trajectories


def learner(*overrides: str, model: Any = None, reference: Any = None, **config: Any) -> Learner:
    recipe = parse_recipe('name: x\ntasks: {train: "a:train"}\n', overrides)
    return Learner(
        model or tiny_model(),
        build_algorithm(recipe),
        config=LearnerConfig(**config),
        optimiser=recipe.optimiser,
        reference=reference,
    )


def gradients(subject: Learner, batch: Batch) -> tuple[Update, dict[str, torch.Tensor]]:
    """The update, and the gradients of its (last) step."""
    found: dict[str, torch.Tensor] = {}
    model, step = subject.policy.model, subject.optimiser.step

    def keep(lr: float) -> float:
        found.update({name: p.grad.clone() for name, p in model.named_parameters()})
        return step(lr)

    subject.optimiser.step = keep  # type: ignore[method-assign]
    return subject.update(batch, MOMENT), found


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[name], b[name], atol=atol, rtol=1e-4) for name in a)


def plain_gradients(batch: Batch, coefficient: float) -> dict[str, torch.Tensor]:
    """GRPO with an entropy bonus, row by row with whole logits: what the learner has to equal."""
    model = tiny_model()
    assert batch.advantage is not None
    loss = torch.zeros((), dtype=torch.float64)
    for row in range(len(batch.ids)):
        length = int(batch.length[row])
        logits = model(batch.ids[row : row + 1, :length]).logits[0, :-1].log_softmax(-1)
        mask = batch.mask[row, 1:length]
        labels = batch.ids[row, 1:length]
        logprob = logits.gather(1, labels[:, None])[:, 0][mask].double()
        entropy = -(logits.exp() * logits).sum(-1)[mask].double()
        turns = batch.step_id[row, 1:length][mask]
        ratio = (logprob - logprob.detach()).exp()
        loss = loss - (ratio * batch.advantage[row, 1:length][mask]).mean() / len(batch.ids)
        nested = torch.stack([entropy[turns == t].mean() for t in turns.unique()]).mean()
        loss = loss - coefficient * nested / len(batch.ids)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_the_gradient_is_that_of_the_plain_computation() -> None:
    update, found = gradients(learner("algorithm.settings.epo.entropy_coeff=0.05"), build_rows(episodes()).batch)
    assert_close(found, plain_gradients(update.batch, 0.05))


@pytest.mark.parametrize("overrides", [[], ["algorithm.name=grpo"], ["algorithm.aggregation=token-mean"]])
@pytest.mark.parametrize("constrained", [False, True])
def test_micro_batches_change_nothing(overrides: list[str], constrained: bool) -> None:
    batch = build_rows(episodes(12, constrained=constrained)).batch
    whole = gradients(learner(*overrides, micro_batch_tokens=10**6), batch)
    parts = gradients(learner(*overrides, micro_batch_tokens=40), batch)
    assert_close(whole[1], parts[1])
    for key in ("loss", "surrogate", "grad_norm", "clip_fraction"):
        assert whole[0].metrics[key] == pytest.approx(parts[0].metrics[key], abs=1e-6)
    assert whole[0].metrics["tokens_trained"] == parts[0].metrics["tokens_trained"]


def test_padding_and_order_of_rows_change_nothing() -> None:
    batch = build_rows(episodes()).batch
    wide = {
        field.name: torch.nn.functional.pad(value, (0, 7), value=0)
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor) and value.ndim == 2
    }
    wide["step_id"] = torch.nn.functional.pad(batch.step_id, (0, 7), value=-1)
    wide["ids"] = torch.nn.functional.pad(batch.ids, (0, 7), value=13)
    reversed_rows = build_rows(episodes()[::-1]).batch
    expected = gradients(learner(), batch)[1]
    assert_close(expected, gradients(learner(), batch.with_(**wide))[1])
    assert_close(expected, gradients(learner(), reversed_rows)[1])


def test_groups_without_signal_are_skipped_exactly() -> None:
    batch = build_rows(episodes(16)).batch
    skipping, full = (
        learner("algorithm.name=grpo"),
        learner("algorithm.name=grpo", "algorithm.drop_uniform_groups=false"),
    )
    some, all_rows = gradients(skipping, batch), gradients(full, batch)
    assert_close(some[1], all_rows[1])
    assert int(some[0].metrics["tokens_trained"] or 0) < int(all_rows[0].metrics["tokens_trained"] or 0)


def test_without_any_signal_grpo_takes_no_step() -> None:
    batch = build_rows(episodes(16)[8:]).batch
    subject = learner("algorithm.name=grpo")
    before = fingerprint(subject.policy.model)
    update = subject.update(batch, MOMENT)
    assert fingerprint(subject.policy.model) == before
    assert update.metrics["tokens_trained"] == 0
    assert update.metrics["grad_norm"] == 0


def test_the_update_s_own_pass_gives_what_scoring_gives() -> None:
    batch = build_rows(episodes(constrained=True)).batch
    subject = learner(micro_batch_tokens=50)
    logprob, entropy, _ = subject.score(batch)
    update = subject.update(batch, MOMENT)
    assert update.batch.old_logprob is not None
    assert update.batch.old_entropy is not None
    assert torch.allclose(update.batch.old_logprob, logprob, atol=1e-6)
    assert torch.allclose(update.batch.old_entropy, entropy, atol=1e-6)
    assert not logprob[~batch.mask].any()
    assert update.metrics["approx_kl"] == 0


def test_several_steps_move_away_from_the_old_policy() -> None:
    batch = build_rows(episodes()).batch
    subject = learner("optimiser.lr=0.01", mini_batches=2, epochs=2)
    update = subject.update(batch, MOMENT)
    assert update.metrics["clip_fraction"]
    scored = learner().score(batch)
    assert update.batch.old_logprob is not None
    assert torch.allclose(update.batch.old_logprob, scored[0], atol=1e-6)


def test_mini_batches_hold_whole_episodes_in_an_order_of_their_own() -> None:
    rows = episodes(9)
    for trajectory in rows:  # a broken context: several rows each
        for step in trajectory.steps:
            step.prompt = [step.completion - 1]
    batch = build_rows(rows).batch
    subject = learner(mini_batches=3, epochs=2)
    parts = list(subject._mini_batches(batch, MOMENT))
    assert len(parts) == 6
    for epoch in (parts[:3], parts[3:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(len(batch.ids)))
        owners = [set(batch.traj[part].tolist()) for part in epoch]
        assert sum(map(len, owners)) == 9
    again = list(subject._mini_batches(batch, MOMENT))
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


def test_rollout_logprobs_can_be_the_old_ones() -> None:
    batch = build_rows(episodes()).batch
    update = learner(old_logprobs="rollout").update(batch, MOMENT)
    assert update.batch.old_logprob is batch.rollout_logprob
    assert update.metrics["rollout_kl"] == 0
    assert update.metrics["approx_kl"] != 0


def test_a_reference_is_needed_exactly_where_there_is_a_kl_term() -> None:
    with pytest.raises(ConfigError, match="needs a reference model"):
        learner("algorithm.kl_coeff=0.1")
    batch = build_rows(episodes()).batch
    update = learner("algorithm.kl_coeff=0.1", reference=tiny_model()).update(batch, MOMENT)
    assert update.metrics["kl"] == pytest.approx(0, abs=1e-9)
    update = learner("algorithm.kl_coeff=0.1", reference=tiny_model(1)).update(batch, MOMENT)
    assert update.metrics["kl"] is not None
    assert update.metrics["kl"] > 0.001


@pytest.mark.parametrize("where", ["weights", "reward", "gradient"])
def test_what_is_not_finite_stops_training_before_the_step(where: str) -> None:
    batch, model = build_rows(episodes()).batch, tiny_model()
    subject = learner(model=model)
    if where == "weights":
        model.model.norm.weight.data[0] = math.nan
    elif where == "reward":
        batch.reward[0] = math.inf
    else:
        model.model.norm.weight.register_hook(lambda gradient: gradient * math.nan)
    before = fingerprint(model)
    with pytest.raises(TrainingError, match=r"iteration 1: .*(not finite|nan).*the last checkpoint is untouched"):
        subject.update(batch, MOMENT)
    assert fingerprint(model) == before
    assert all(p.grad is None for p in model.parameters())
    assert subject.optimiser.state_tensors() == {}


def gpt2(dropout: float = 0.1) -> GPT2LMHeadModel:
    """A model whose configuration asks for dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 300}
        dropouts = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), dropout)
        return GPT2LMHeadModel(GPT2Config(**config, **dropouts, bos_token_id=1, eos_token_id=2))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_there_is_no_dropout(checkpointing: bool) -> None:
    batch, model = build_rows(episodes()).batch, gpt2()
    subject = learner(model=model, gradient_checkpointing=checkpointing)
    state = torch.random.get_rng_state()
    first, again = subject.score(batch)[:2], subject.score(batch)[:2]
    update, found = gradients(subject, batch)
    assert torch.equal(torch.random.get_rng_state(), state)
    plain, expected = gradients(learner(model=gpt2(0.0)), batch)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert_close(found, expected)
    assert update.metrics["loss"] == pytest.approx(plain.metrics["loss"])
    assert model.config.resid_pdrop == 0.1


def test_recomputing_recomputes() -> None:
    counts = []
    for checkpointing in (False, True):
        model, calls = gpt2(), []
        subject = learner(model=model, gradient_checkpointing=checkpointing)
        model.transformer.h[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        subject.update(build_rows(episodes()).batch, MOMENT)
        counts.append(len(calls))
    assert counts[1] == 2 * counts[0]


class Noisy(GPT2LMHeadModel):  # type: ignore[misc]
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.transformer.wte.register_forward_hook(
            lambda module, _, output: output + torch.randn_like(output) if module.training else output
        )


def test_a_model_that_stays_random_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learner\.gradient_checkpointing: Noisy is random in training mode"):
        learner(model=Noisy(gpt2().config), gradient_checkpointing=True)


def test_restored_state_lies_beside_its_parameter() -> None:
    linear = torch.nn.Linear(3, 2)
    linear(torch.ones(1, 3)).sum().backward()
    optimiser = Optimiser(linear, OptimiserConfig())
    optimiser.step(1e-3)
    saved = {name: value.cpu() for name, value in optimiser.state_tensors().items()}
    elsewhere, half = (
        Optimiser(torch.nn.Linear(3, 2, **kind), OptimiserConfig())
        for kind in ({"device": "meta"}, {"dtype": torch.bfloat16})
    )
    elsewhere.load_state_tensors(saved)
    assert {value.device.type for value in elsewhere.state_tensors().values()} == {"meta"}
    half.load_state_tensors(saved)
    kinds = {name.rpartition(".")[2]: value.dtype for name, value in half.state_tensors().items()}
    assert kinds == {"step": torch.float32, "exp_avg": torch.bfloat16, "exp_avg_sq": torch.bfloat16}


@pytest.mark.parametrize("config", [{"autocast": "bfloat16"}, {"gradient_checkpointing": True}])
def test_precision_and_memory_switches_give_nearly_the_same(config: dict[str, Any]) -> None:
    batch = build_rows(episodes()).batch
    exact, found = gradients(learner(), batch)[1], gradients(learner(**config), batch)[1]
    for name, gradient in exact.items():
        assert torch.nn.functional.cosine_similarity(gradient.flatten(), found[name].flatten(), dim=0) > 0.97, name


@given(st.lists(st.integers(0, 12), min_size=1, max_size=20), st.integers(1, 60))
@settings(max_examples=50)
def test_micro_batches_cover_rows_once_within_the_budget(lengths: list[int], budget: int) -> None:
    rows, width = len(lengths), 14
    mask = torch.zeros(rows, width, dtype=torch.bool)
    for row, last in enumerate(lengths):
        mask[row, 1 : last + 1] = True
    zeros, line = torch.zeros(rows, width), torch.zeros(rows, dtype=torch.int64)
    batch = Batch(zeros.long(), line, mask, zeros.long(), line, line, line.double(), zeros, zeros)
    flat = Flat.of(batch)
    seen: list[int] = []
    for part in micro_batches(flat, torch.arange(rows), budget):
        assert len(part.rows) * part.width <= max(budget, part.width)
        assert part.width == max(lengths[row] for row in part.rows.tolist())
        assert flat.row[part.tokens].tolist() == [row for row in part.rows.tolist() for _ in range(lengths[row])]
        seen += part.rows.tolist()
    assert sorted(seen) == [row for row in range(rows) if lengths[row]]


def test_ranges() -> None:
    assert ranges(torch.tensor([5, 0, 9]), torch.tensor([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", [0.5, 1.0, 1.0, 0.2 + 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.2 + 0.4 * (1 - math.sqrt(0.5)), 0.2]),
    ],
)
def test_learning_rates(schedule: str, expected: list[float]) -> None:
    config = OptimiserConfig(lr=1.0, schedule=schedule, warmup=2 / 7, floor=0.2)  # type: ignore[arg-type]
    rates = [learning_rate(config, iteration, 7) for iteration in range(7)]
    assert rates == pytest.approx(expected)
    assert learning_rate(config, 70, 7) == pytest.approx(expected[-1])
