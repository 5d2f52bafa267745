"""Skill-SD: the bank of skills, the rows that the teacher reads, and the term."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.levers import LEVERS, levers_recipe, register_levers, save_tiny_model, tiny_model
from support.resuming import assert_resumes
from support.updates import MOMENT, assert_same, episodes, learner, played, recipe, update

from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.checkpoint import load_latest
from palaestra.training.learner import Learner
from palaestra.training.metrics import read_metrics
from palaestra.training.plugins.skill_sd import skill_values
from palaestra.training.preface import moved_back, prefaced
from palaestra.training.rows import build_rows
from palaestra.training.run import train
from palaestra.training.seams import Moment, Tokens
from palaestra.training.skill_teacher import ON, TEACHER, SkillTeacher
from palaestra.training.skills import Skill, SkillBank, actions_of, best
from palaestra.trajectories.record import StepRecord, Trajectory

SKILL = ["algorithm.name=grpo", "algorithm.plugins=[skill_sd]"]
WORDS = [11, 12, 13, 14, 15]


def subject(*overrides: str, text: list[int] | None = None, longest: int = 10**6, **config: Any) -> Learner:
    """With a skill of every kind whose message has these tokens, `None`: without a run."""
    found = recipe(
        *SKILL, "algorithm.settings.skill_sd.by=task", *overrides, *(f"learner.{k}={v}" for k, v in config.items())
    )
    algorithm = build_algorithm(found)
    if text is not None:
        teacher = teacher_of(algorithm.parts.providers)
        teacher.encode, teacher.longest = lambda _: text, longest
        teacher.bank.load_state_dict({str(n): [["words", 1, 0.5]] for n in range(3)})
    return Learner(tiny_model(), algorithm, config=found.learner, optimiser=found.optimiser)


def teacher_of(providers: Any) -> SkillTeacher:
    (teacher,) = providers
    assert isinstance(teacher, SkillTeacher)
    return teacher


def constrained() -> Batch:
    """Two choices a token, and a system message in every other episode."""
    trajectories = episodes()
    for number, trajectory in enumerate(trajectories):
        trajectory.nodes[0].role = "system" if number % 2 else "user"
        for node in trajectory.nodes:
            if node.sampled:
                node.allowed = [sorted({token, (token + 7) % 300}) for token in node.ids]
    return build_rows(trajectories, temperature=0.7).batch


# The bank


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=6), st.floats(0, 3))
def test_the_choice_is_the_highest_bound(known: list[tuple[int, float]], explore: float) -> None:
    bank = SkillBank(explore=explore)
    bank.skills["k"] = [Skill(str(i), n, n * mean) for i, (n, mean) in enumerate(known)]
    total = sum(n for n, _ in known)
    bounds = [(n * mean) / n + explore * math.sqrt(math.log(total) / n) for n, mean in known]
    chosen = bank.choose("k")
    assert chosen is not None
    assert bounds[chosen] == max(bounds)


def test_untried_skills_come_first_and_choices_count_at_once() -> None:
    bank = SkillBank(explore=0.0)
    assert bank.choose("k") is None
    for text in ("a", "b", "a", ""):
        bank.add("k", text)
    assert [skill.text for skill in bank.skills["k"]] == ["a", "b"]
    assert bank.choose("k") == 0
    assert bank.choose("k", {0: 1}) == 1
    bank.credit("k", "a", 0.25)
    assert bank.choose("k") == 1
    bank.credit("k", "b", 0.75)
    assert bank.choose("k") == 1
    bank.credit("k", "gone", 9.0)
    assert bank.skills["k"][1].mean == 0.75


def test_a_full_bank_gives_up_its_worst_once_all_were_tried() -> None:
    bank = SkillBank(size=2)
    for text in ("a", "b", "c"):
        bank.add("k", text)
    assert [skill.text for skill in bank.skills["k"]] == ["a", "b"]
    bank.credit("k", "a", 1.0)
    bank.credit("k", "b", 0.0)
    bank.add("k", "c")
    assert [skill.text for skill in bank.skills["k"]] == ["a", "c"]
    again = SkillBank(size=2)
    again.load_state_dict(bank.state_dict())
    assert again == bank


def test_a_summary_names_the_actions_that_were_taken() -> None:
    taken = [
        StepRecord(observation="", action=a, reward=0, invalid=a == "no") for a in ("go {x}", "no", "take", "look")
    ]
    one = Trajectory(id="1", env="", task="", steps=taken, success=True, total_reward=1.0)
    assert actions_of(one, "Do: {actions}.", 9) == "Do: go {x}; take; look."
    assert actions_of(one, "Do: {actions}.", 2) == "Do: go {x}; take; ...."
    assert actions_of(Trajectory(id="0", env="", task=""), "Do: {actions}.", 2) == ""
    short = Trajectory(id="2", env="", task="", steps=taken[:2], success=True, total_reward=1.0)
    assert best([one, short, Trajectory(id="3", env="", task="", total_reward=5.0)]) is short
    assert best([]) is None


# What the teacher reads


@given(seed=st.integers(0, 20), sizes=st.lists(st.integers(0, 5), min_size=12, max_size=12))
def test_prefaced_rows_hold_the_same_actions(seed: int, sizes: list[int]) -> None:
    batch = played(seed)
    texts, at = [WORDS[:size] for size in sizes], [n % 2 for n in range(len(batch.ids))]
    texts = (texts * 2)[: len(batch.ids)]
    longer, shift = prefaced(batch, texts, at)
    assert torch.equal(longer.ids[longer.mask], batch.ids[batch.mask]), "in the same order"
    assert torch.equal(longer.step_id[longer.mask], batch.step_id[batch.mask])
    for row, (text, place) in enumerate(zip(texts, at, strict=True)):
        length, ids = int(batch.length[row]), batch.ids[row].tolist()
        assert longer.ids[row, : length + len(text)].tolist() == [*ids[:place], *text, *ids[place:length]]
    column = torch.where(longer.mask, longer.ids.float(), 0.0)
    assert torch.equal(moved_back(column, shift, batch.shape[1]), torch.where(batch.mask, batch.ids.float(), 0.0))


def test_the_teacher_is_the_policy_after_the_skill() -> None:
    """Row by row with whole logits: behind the system message, at the same temperature, over the same choices."""
    batch, ours = constrained(), subject(text=WORDS)
    (provider,) = ours.algorithm.parts.providers
    found = provider(batch, MOMENT, ours._log_probs)
    assert torch.equal(found[ON], batch.mask.float())
    assert batch.allowed is not None
    assert batch.episodes is not None
    model = tiny_model()
    for place, (row, column) in enumerate(batch.mask.nonzero().tolist()):
        first = batch.episodes[int(batch.traj[row])].nodes[0]
        start = len(first.ids) if first.role == "system" else 0
        ids = batch.ids[row, :column].tolist()
        logits = model(torch.tensor([[*ids[:start], *WORDS, *ids[start:]]])).logits[0, -1] / 0.7
        among = batch.allowed.ids[slice(*batch.allowed.offsets[place : place + 2].tolist())]
        expected = logits[batch.ids[row, column]] - logits[among].logsumexp(0)
        assert float(found[TEACHER][row, column]) == pytest.approx(expected.item(), abs=1e-5)
    assert not found[TEACHER][~batch.mask].any()


def test_an_empty_skill_is_the_student_and_no_loss() -> None:
    for text in ([], None):
        ours = update(subject(text=text, mini_batches=2), played())
        theirs = update(learner("algorithm.name=grpo", "algorithm.drop_uniform_groups=false", mini_batches=2), played())
        assert ours[0].metrics["skill_sd"] == 0
        assert ours[0].metrics["skilled_fraction"] == 0
        assert_same(ours[1], theirs[1], atol=0.0)


def test_rows_that_would_not_fit_are_left_plain() -> None:
    batch, longest = played(), int(played().length.max()) + len(WORDS) - 1
    ours = subject(text=WORDS, longest=longest)
    (provider,) = ours.algorithm.parts.providers
    on = provider(batch, MOMENT, ours._log_probs)[ON].any(1)
    assert torch.equal(on, batch.length + len(WORDS) <= longest)
    assert not on.all()


def test_rows_that_were_left_out_have_no_teacher() -> None:
    batch = played().keeping(torch.arange(12) > 2)
    metrics = subject(text=WORDS).update(batch, MOMENT).metrics
    assert metrics["skilled_fraction"] == 1
    none = played().keeping(torch.zeros(12, dtype=torch.bool))
    assert all(math.isfinite(v) for v in subject(text=WORDS).update(none, MOMENT).metrics.values() if v is not None)


# The term


def tokens_of(logprob: torch.Tensor, seed: int = 0, on: float = 1.0) -> Tokens:
    g = torch.Generator().manual_seed(seed)
    teacher, old = (-3 * torch.rand(len(logprob), generator=g, dtype=torch.float64) for _ in range(2))
    zero, row = torch.zeros_like(teacher), torch.zeros(len(teacher), dtype=torch.int64)
    extra = {TEACHER: teacher, ON: torch.full_like(teacher, on)}
    return Tokens(logprob, zero, old, zero, zero, row, row=row, old_extra=extra)


@given(st.integers(0, 1000))
def test_the_term_is_not_negative_and_0_where_both_agree(seed: int) -> None:
    logprob = -3 * torch.rand(9, generator=torch.Generator().manual_seed(seed + 7), dtype=torch.float64)
    tokens = tokens_of(logprob, seed)
    values = skill_values(tokens).value
    gap = logprob - tokens.old_extra[TEACHER]
    expected = (logprob - tokens.old_logprob).exp() * ((-gap).exp() - 1 + gap)
    torch.testing.assert_close(values, expected)
    assert (values >= 0).all()
    assert not skill_values(tokens_of(tokens.old_extra[TEACHER], seed)).value.any()
    assert not skill_values(tokens_of(logprob, seed, on=0.0)).value.any()


def test_the_gradient_is_that_of_finite_differences() -> None:
    logprob = -torch.rand(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value = lambda x: skill_values(tokens_of(x)).value  # noqa: E731
    assert torch.autograd.gradcheck(value, (logprob.requires_grad_(),))
    wild = torch.tensor([-1e4, -200.0, 0.0], dtype=torch.float64, requires_grad=True)
    skill_values(tokens_of(wild)).value.sum().backward()  # type: ignore[no-untyped-call]
    assert wild.grad is not None
    assert wild.grad.isfinite().all()


def test_a_skill_moves_the_policy_towards_it() -> None:
    """With the reward out of the way, the steps of an iteration bring the policy to its teacher."""
    weights = ["algorithm.settings.skill_sd.lam=1", "optimiser.lr=2e-5"]
    batch = build_rows(episodes((1,) * 12)).batch
    first, last = (subject(*weights, text=WORDS, epochs=n).update(batch, MOMENT).metrics["skill_sd"] for n in (1, 12))
    assert last < first * 0.9  # type: ignore[operator]


def test_micro_batches_change_nothing() -> None:
    parts, whole = (update(subject(text=WORDS, micro_batch_tokens=n), played())[1] for n in (30, 10**6))
    assert_same(parts, whole)


def test_order_of_episodes_changes_nothing() -> None:
    ours, theirs = (subject("algorithm.settings.skill_sd.lam=1", text=WORDS) for _ in range(2))
    found = update(ours, build_rows(episodes()).batch)[1]
    assert_same(update(theirs, build_rows(episodes()[::-1]).batch)[1], found)
    assert ours.algorithm.state_dict() == theirs.algorithm.state_dict()


def test_skills_are_credited_and_learned() -> None:
    ours = subject(text=WORDS)
    teacher = teacher_of(ours.algorithm.parts.providers)
    ours.update(played(), MOMENT)
    words = {kind: (known[0].text, known[0].count, known[0].mean) for kind, known in teacher.bank.skills.items()}
    assert words == {"0": ("words", 2, 0.5), "1": ("words", 2, 0.5), "2": ("words", 2, 0.75)}
    named = episodes()
    for each in named:
        for step in each.steps:
            step.action = f"act {each.id}"
    ours.update(build_rows(named).batch, Moment(2, 10))
    texts = [skill.text for skill in teacher.bank.skills["0"]]
    assert texts[0] == "words"
    assert texts[-1].startswith("A task like this one was solved by these actions: act ")


# Runs


def test_a_run_writes_skills_and_reads_them(tmp_path: Path) -> None:
    register_levers()
    save_tiny_model(tmp_path / "base")
    less = ["evaluation.every=0", "evaluation.test_episodes=0", "budget.iterations=8"]
    train(levers_recipe(tmp_path, *SKILL, *less, "agent.system=be quick", "rollout.group_size=8"))
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"]
    assert rows[0]["skill_sd"] == rows[0]["skills"] == 0
    assert rows[-1]["skills"] == 1, "the one solution of all tasks"
    assert rows[-1]["skill_sd"] > 0
    assert rows[-1]["skilled_fraction"] == 1
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    ((text, count, total),) = checkpoint.state["algorithm"]["trackers"]["skill_sd"]["levers"]
    assert text == f"A task like this one was solved by these actions: {LEVERS[0]}; {LEVERS[0]}"
    assert count > 0
    assert total > 0


def test_a_run_resumes(tmp_path: Path) -> None:
    rows = assert_resumes(
        tmp_path, *SKILL, "algorithm.settings.skill_sd={lam: 0.5, by: task}", "learner.epochs=2", "rollout.groups=6"
    )
    assert rows[-1]["skills"] > 0
