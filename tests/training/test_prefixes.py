"""Rows that begin alike are read once, and nothing else changes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.levers import tiny_model
from support.updates import assert_same, episodes, learner, update

from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.prefixes import Cost, Tree, trees
from palaestra.training.rows import build_rows
from palaestra.trajectories.record import Node, StepRecord, Trajectory

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


def built(rows: list[list[int]], cost: Cost, families: int = 1) -> list[Tree]:
    return list(trees([(k, k % families, np.array(row)) for k, row in enumerate(rows)], cost, 40))


@given(rows=ROWS, pair=st.sampled_from([0.0, 0.1, 1.0]), dense=st.booleans(), families=st.integers(1, 3))
def test_every_row_is_a_path_through_its_tree(rows: list[list[int]], pair: float, dense: bool, families: int) -> None:
    found = built(rows, Cost(1.0, pair, dense), families)
    assert sorted(row for tree in found for row in tree.places) == list(range(len(rows)))
    for tree in found:
        for row, places in tree.places.items():
            assert tree.ids[places].tolist() == rows[row]
            assert tree.position[places].tolist() == list(range(len(rows[row])))
            place = places[-1]
            read = [j for j in range(len(tree)) if j <= place < tree.end[j]]
            assert read == places.tolist(), "a row's last token reads the row and nothing else"
        assert len({row % families for row in tree.places}) == 1
    if not pair:
        for kin in range(families):
            own = [tuple(row) for k, row in enumerate(rows) if k % families == kin]
            prefixes = {row[:n] for row in own for n in range(1, len(row) + 1)}
            alike = [tree for tree in found if next(iter(tree.places)) % families == kin]
            assert sum(map(len, alike)) == len(prefixes), "each prefix once"


def test_a_tree_that_costs_more_than_its_rows_is_none() -> None:
    rows = [[1, *([k + 2] * 30)] for k in range(4)]
    assert len(list(trees([(k, 0, np.array(r)) for k, r in enumerate(rows)], Cost(1.0, 1.0), 1000))) == 4
    assert len(list(trees([(k, 0, np.array(r)) for k, r in enumerate(rows)], Cost(1.0, 1.0, dense=False), 1000))) == 1
    assert len(list(trees([(k, 0, np.array(r)) for k, r in enumerate(rows)], Cost(), 70))) == 2


def family(shape: list[list[int]], seed: int) -> list[Trajectory]:
    """Episodes of one group, with the same prompt; the numbers say what a turn's prompt keeps of the turns before."""
    random = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> list[int]:
        count = int(torch.randint(low, high, (1,), generator=random))
        return torch.randint(1, 300, (count,), generator=random).tolist()

    task = draw(3, 12)
    found = []
    for number, turns in enumerate(shape):
        nodes, steps = [Node(ids=task)], []
        for kept in turns:
            nodes.append(Node(ids=draw(1, 5)))
            past = list(range(1, len(nodes) - 1))
            ids = draw(1, 5)
            nodes.append(Node(ids=ids, sampled=True, logprobs=[-5.0] * len(ids), entropies=[5.0] * len(ids)))
            prompt = [0, *past[max(0, len(past) - 2 * kept) :], len(nodes) - 2]
            steps.append(StepRecord(observation="", action="a", reward=0.0, completion=len(nodes) - 1, prompt=prompt))
        reward = float((number + seed) % 2)
        found.append(
            Trajectory(id=str(number), env="", task="", group="g", nodes=nodes, steps=steps, total_reward=reward)
        )
    return found


def same_update(batch: Batch, *overrides: str, model: Any = None) -> tuple[int, int]:
    """Tokens that are read apart and together, where loss and gradient are the same."""
    subjects = [learner("algorithm.name=epo"), learner("algorithm.name=epo", *overrides)]
    if model is not None:
        for subject in subjects:
            subject.policy.model.load_state_dict(model.state_dict())
    (apart, expected), (merged, found) = (update(subject, copy.deepcopy(batch)) for subject in subjects)
    assert_same(found, expected, atol=1e-5)
    for name in ("loss", "surrogate", "grad_norm", "entropy_term"):
        if name in apart.metrics:
            assert merged.metrics[name] == pytest.approx(apart.metrics[name], abs=1e-5, rel=1e-5)
    return int(apart.metrics["tokens_trained"] or 0), int(merged.metrics["tokens_trained"] or 0)


@settings(max_examples=8, deadline=None)
@given(
    shape=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), min_size=2, max_size=4),
    seed=st.integers(0, 99),
    merge=st.sampled_from(["never", "episode", "always"]),
    packing=st.booleans(),
    budget=st.sampled_from([24, 100, 2048]),
)
def test_loss_and_gradient_are_those_of_rows_apart(
    shape: list[list[int]], seed: int, merge: str, packing: bool, budget: int
) -> None:
    batch = build_rows(family(shape, seed)).batch
    switches = [f"learner.merge_prefixes={merge}", f"learner.packing={str(packing).lower()}"]
    apart, merged = same_update(batch, *switches, f"learner.micro_batch_tokens={budget}")
    assert merged <= apart
    if merge == "never":
        assert merged == apart


def test_one_row_a_turn_is_read_in_linear_time() -> None:
    """Each turn's row repeats all before it: T turns of the same size are read in T times one turn."""

    def rows(turns: int) -> list[list[int]]:
        line = [k % 250 + 1 for k in range(10 * turns)]
        return [line[: 10 * (turn + 1)] for turn in range(turns)]

    for turns in (4, 16, 64):
        (tree,) = trees([(k, 0, np.array(row)) for k, row in enumerate(rows(turns))], Cost(1.0, 1.0), 32)
        assert len(tree) == 10 * turns
        assert tree.chain


def test_full_contexts_are_read_as_before_bit_for_bit() -> None:
    """There is nothing to merge within an episode that is one row, and no mask is needed for it."""
    batch = build_rows(episodes()).batch
    plain = update(learner("algorithm.name=epo", micro_batch_tokens=16), copy.deepcopy(batch))
    merged = update(learner("algorithm.name=epo", micro_batch_tokens=16, merge_prefixes="episode"), batch)
    assert_same(merged[1], plain[1], atol=0)
    assert merged[0].metrics == plain[0].metrics


def test_what_all_rows_begin_with_is_read_once() -> None:
    batch = build_rows(family([[4, 4], [4], [4, 4, 4]], 3)).batch
    apart, merged = same_update(batch, "learner.merge_prefixes=always")
    assert merged < apart


def test_models_that_cannot_are_refused() -> None:
    model = tiny_model()
    model.config.layer_types = ["sliding_attention"] * model.config.num_hidden_layers
    recipe_of = learner("algorithm.name=grpo")
    with pytest.raises(ConfigError, match=r"learner\.merge_prefixes.*switch it off"):
        type(recipe_of)(
            model,
            recipe_of.algorithm,
            config=learner("learner.merge_prefixes=always").config,
        )
