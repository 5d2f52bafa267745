"""Top-k and top-p: which tokens are drawn, and that log-probs and entropies do not notice."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.agents.engines.base import Cut, SamplingParams
from palaestra.agents.engines.sampling import sample
from palaestra.errors import ConfigError

WEIGHTS = [0.1, 0.4, 0.05, 0.3, 0.15]
LOGITS = torch.tensor(WEIGHTS).log()
GRID = [(n + 0.5) / 400 for n in range(400)]


def drawn(cut: Cut | None, allowed: list[int] | None = None, temperature: float = 1.0) -> dict[int, float]:
    """Each id's share of an even grid of draws."""
    rows = len(GRID)
    ids = sample(LOGITS.expand(rows, -1), [temperature] * rows, GRID, [allowed] * rows, [cut] * rows).ids
    return {token: ids.count(token) / rows for token in sorted(set(ids))}


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        (Cut(0, 0.39), [1]),
        (Cut(0, 0.6), [1, 3]),
        (Cut(0, 0.8), [1, 3, 4]),
        (Cut(0, 1e-9), [1]),
        (Cut(1, 1.0), [1]),
        (Cut(3, 1.0), [1, 3, 4]),
        (Cut(99, 1.0), [0, 1, 2, 3, 4]),
        (Cut(2, 0.5), [1]),
        (Cut(2, 0.99), [1, 3]),
        (None, [0, 1, 2, 3, 4]),
    ],
)
def test_the_likeliest_are_drawn_in_proportion(cut: Cut | None, kept: list[int]) -> None:
    total = sum(WEIGHTS[token] for token in kept)
    assert drawn(cut) == pytest.approx({token: WEIGHTS[token] / total for token in kept}, abs=0.003)


def test_of_equally_likely_tokens_the_first_stay() -> None:
    assert sample(torch.zeros(1, 6), [1.0], [0.999], [None], [Cut(2, 1.0)]).ids == [1]


def test_temperature_comes_first() -> None:
    kept = [list(drawn(Cut(0, 0.75), temperature=temperature)) for temperature in (1.0, 0.5, 0.1)]
    assert kept == [[1, 3, 4], [1, 3], [1]]


def test_a_constraint_comes_first() -> None:
    assert list(drawn(Cut(2, 1.0), allowed=[0, 2, 4])) == [0, 4]


@given(
    st.integers(0, 10**6),
    st.integers(0, 8),
    st.floats(0.01, 1.0),
    st.sampled_from([0.0, 0.7, 1.0]),
    st.floats(0, 0.999),
)
@settings(max_examples=60, deadline=None)
def test_log_probs_are_of_the_full_distribution_and_other_rows_do_not_matter(
    seed: int, top_k: int, top_p: float, temperature: float, uniform: float
) -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed))
    cuts = [None, SamplingParams(top_k=top_k, top_p=top_p).cut, None]
    together = sample(logits, [1.0, temperature, 0.7], [0.3, uniform, 0.9], [None] * 3, cuts)
    alone = sample(logits[1:2], [temperature], [uniform], [None], cuts[1:2])
    plain = sample(logits[[0, 2]], [1.0, 0.7], [0.3, 0.9], [None] * 2)
    assert [column[1] for column in together] == [column[0] for column in alone]
    assert [[column[0], column[2]] for column in together] == list(plain)
    full = (logits[1].double() / (temperature or 1.0)).log_softmax(-1)
    assert together.logprobs[1] == pytest.approx(float(full[together.ids[1]]))
    assert together.entropies[1] == pytest.approx(float(-(full.exp() * full).sum()))
    assert int((full > full[together.ids[1]]).sum()) < (top_k or 7)


@pytest.mark.parametrize("broken", [{"top_p": 0.0}, {"top_p": 1.1}, {"top_p": math.nan}, {"top_k": -1}])
def test_cuts_that_mean_nothing_are_refused(broken: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be at least 0, and top_p"):
        SamplingParams(**broken)  # type: ignore[arg-type]


def test_no_cut_is_none() -> None:
    assert SamplingParams().cut is None
    assert SamplingParams(top_p=0.9).cut == (0, 0.9)
