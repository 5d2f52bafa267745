"""Chunked log-prob and entropy against the plain formula, with masks, temperatures, dtypes and broken numbers."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palaestra.errors import TrainingError
from palaestra.training.batch import Allowed
from palaestra.training.head import HeadShape
from palaestra.training.logprob import logprob_entropy

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)
N, D, V = 9, 4, 13


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden, weight, bias (leaves) and labels."""
    g = generator(seed)
    hidden, weight, bias = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((N, D), (V, D), (V,)))
    leaves = [x.to(dtype).requires_grad_() for x in (hidden, weight, bias)]
    return leaves[0], leaves[1], leaves[2], torch.randint(V, (N,), generator=g)


def plain(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    temperature: float,
    keep: Tensor | None = None,
    shape: HeadShape = HeadShape(),
) -> tuple[Tensor, Tensor]:
    """The formula, with a [N, V] mask of what is allowed."""
    logits = hidden @ weight.T if bias is None else hidden @ weight.T + bias
    logits = shape(logits) / temperature
    if keep is not None:
        logits = torch.where(keep, logits, -torch.inf)
    logp = logits.log_softmax(-1)
    terms = torch.where(logp > -torch.inf, logp.exp() * torch.where(logp > -torch.inf, logp, 0), 0)
    return logp.gather(1, labels[:, None])[:, 0], -terms.sum(-1)


def ragged(sets: list[list[int]]) -> Allowed:
    offsets = torch.tensor([0, *[len(s) for s in sets]]).cumsum(0)
    return Allowed(ids=torch.tensor([i for s in sets for i in s], dtype=torch.int64), offsets=offsets)


def sets_for(labels: Tensor, seed: int, *, empty: bool = True) -> list[list[int]]:
    """Random sets that hold their label; some with one id, some empty."""
    g, sets = generator(seed + 1), []
    for label in labels.tolist():
        size = int(torch.randint(0 if empty else 1, 6, (), generator=g))
        others = torch.randperm(V, generator=g)[:size].tolist()
        sets.append(sorted({label, *others[1:]}) if size else [])
    return sets


def dense_mask(sets: list[list[int]]) -> Tensor:
    keep = torch.zeros(len(sets), V, dtype=torch.bool)
    for row, ids in enumerate(sets):
        keep[row, ids if ids else slice(None)] = True
    return keep


def with_gradients(pair: tuple[Tensor, Tensor], leaves: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    g = generator(seed + 2)
    mix = [torch.randn(len(pair[0]), generator=g, dtype=torch.float64).to(pair[0].dtype) for _ in pair]
    loss = (pair[0] * mix[0] + pair[1] * mix[1]).sum()
    return (*pair, *torch.autograd.grad(loss, leaves))


def assert_close(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=tolerance, check_dtype=False)


@SETTINGS
@given(
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([1.0, 0.4, 1.7]),
    chunk=st.integers(1, 12),
    vocab_chunk=st.integers(1, 16),
    masked=st.sampled_from(["none", "some", "all"]),
    with_bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.125, 3.0]),
    soft_cap=st.sampled_from([None, 0.5, 5.0]),
)
def test_equals_the_formula_in_values_and_gradients(
    seed: int,
    temperature: float,
    chunk: int,
    vocab_chunk: int,
    masked: str,
    with_bias: bool,
    scale: float,
    soft_cap: float | None,
) -> None:
    hidden, weight, bias, labels = inputs(seed)
    sets = None if masked == "none" else sets_for(labels, seed, empty=masked == "some")
    leaves = (hidden, weight, bias) if with_bias else (hidden, weight)
    options: dict[str, Any] = {"temperature": temperature, "chunk": chunk, "vocab_chunk": vocab_chunk}
    options |= {"scale": scale, "soft_cap": soft_cap}
    ours = logprob_entropy(
        hidden, weight, labels, allowed=ragged(sets) if sets else None, bias=bias if with_bias else None, **options
    )
    keep = dense_mask(sets) if sets else None
    shape = HeadShape(scale, soft_cap)
    theirs = plain(hidden, weight, bias if with_bias else None, labels, temperature, keep, shape)
    assert_close(with_gradients(ours, leaves, seed), with_gradients(theirs, leaves, seed), 1e-10)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_by_finite_differences(masked: bool) -> None:
    hidden, weight, bias, labels = inputs(3)
    allowed = ragged(sets_for(labels, 3)) if masked else None

    def f(h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return logprob_entropy(h, w, labels, temperature=0.8, chunk=4, vocab_chunk=5, allowed=allowed, bias=b)

    assert torch.autograd.gradcheck(f, (hidden, weight, bias))


@pytest.mark.parametrize("output", [0, 1])
def test_gradient_through_one_output_alone(output: int) -> None:
    hidden, weight, _, labels = inputs(4)
    for sets in (None, sets_for(labels, 4)):
        ours = logprob_entropy(hidden, weight, labels, allowed=ragged(sets) if sets else None)[output]
        theirs = plain(hidden, weight, None, labels, 1.0, dense_mask(sets) if sets else None)[output]
        leaves = (hidden, weight)
        assert_close(torch.autograd.grad(ours.sum(), leaves), torch.autograd.grad(theirs.sum(), leaves), 1e-12)


def test_only_the_gradients_that_are_wanted() -> None:
    hidden, weight, _, labels = inputs(5)
    frozen = logprob_entropy(hidden, weight.detach(), labels)
    (gradient,) = torch.autograd.grad(frozen[1].sum(), hidden)
    (expected,) = torch.autograd.grad(plain(hidden, weight, None, labels, 1.0)[1].sum(), hidden)
    torch.testing.assert_close(gradient, expected)
    with torch.no_grad():
        assert not logprob_entropy(hidden, weight, labels)[0].requires_grad


def test_a_forced_token_has_no_entropy_and_no_gradient() -> None:
    hidden, weight, bias, labels = inputs(6)
    forced = ragged([[int(label)] for label in labels])
    logprob, entropy = logprob_entropy(hidden, weight, labels, allowed=forced, bias=bias)
    assert logprob.tolist() == entropy.tolist() == [0.0] * N
    gradients = torch.autograd.grad((logprob + entropy).sum(), (hidden, weight, bias))
    assert all(g.eq(0).all() for g in gradients)


def test_masked_out_logits_get_exactly_no_gradient() -> None:
    hidden, weight, bias, labels = inputs(7)
    labels = labels.clamp(max=V - 3)
    sets = [sorted({int(label), 0, 1, 2}) for label in labels]
    pair = logprob_entropy(hidden, weight, labels, allowed=ragged(sets), bias=bias)
    _, grad_weight, grad_bias = torch.autograd.grad((pair[0] + pair[1]).sum(), (hidden, weight, bias))
    assert grad_weight[V - 2 :].eq(0).all()
    assert grad_bias[V - 2 :].eq(0).all()


@pytest.mark.parametrize("vocab_chunk", [2, 100])
def test_a_bias_of_minus_infinity_is_a_mask(vocab_chunk: int) -> None:
    hidden, weight, _, labels = inputs(8)
    labels = labels.clamp(min=6)
    removed = torch.zeros(V, dtype=torch.float64)
    removed[:5] = -torch.inf
    bias = removed.clone().requires_grad_()
    ours = logprob_entropy(hidden, weight, labels, bias=bias, vocab_chunk=vocab_chunk)
    keep = torch.isfinite(removed).expand(N, V)
    theirs = plain(hidden, weight, None, labels, 1.0, keep)
    assert_close(
        with_gradients(ours, (hidden, weight), 8), with_gradients(theirs, (hidden, weight), 8), tolerance=1e-12
    )
    (gradient,) = torch.autograd.grad(sum(x.sum() for x in logprob_entropy(hidden, weight, labels, bias=bias)), bias)
    assert gradient[:5].eq(0).all()
    assert gradient.isfinite().all()
    masked = logprob_entropy(hidden, weight, labels, bias=bias, allowed=ragged([[0, 3, int(x)] for x in labels]))
    assert masked[0].eq(0).all()
    assert masked[1].eq(0).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_lower_precision_is_computed_in_float32(dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, bias, labels = inputs(9, dtype)
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight, bias)]
    for sets in (None, sets_for(labels, 9)):
        pair = logprob_entropy(hidden, weight, labels, bias=bias, allowed=ragged(sets) if sets else None, chunk=4)
        assert pair[0].dtype == pair[1].dtype == torch.float32
        theirs = plain(exact[0], exact[1], exact[2], labels, 1.0, dense_mask(sets) if sets else None)
        assert_close(pair, theirs, 1e-5)
        gradients = with_gradients(pair, (hidden, weight, bias), 9)[2:]
        assert all(g.dtype == dtype for g in gradients)
        expected = with_gradients(theirs, tuple(exact), 9)[2:]
        for g, e in zip(gradients, expected, strict=True):
            torch.testing.assert_close(g.double(), e, rtol=tolerance, atol=tolerance)


def test_autocast_does_not_lower_the_precision() -> None:
    hidden, weight, _, labels = inputs(10, torch.float32)
    expected = with_gradients(logprob_entropy(hidden, weight, labels), (hidden, weight), 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = with_gradients(logprob_entropy(hidden, weight, labels), (hidden, weight), 10)
    assert_close(actual, expected, 0.0)


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4], [0.0]], requires_grad=True)
    weight = torch.tensor([[3.0], [-3.0], [0.5]], requires_grad=True)
    for allowed in (None, ragged([[0, 1], [0, 1, 2], [0, 1, 2]])):
        logprob, entropy = logprob_entropy(hidden, weight, torch.tensor([0, 1, 2]), allowed=allowed)
        assert logprob[:2].tolist() == entropy[:2].tolist() == [0.0, 0.0]
        gradients = torch.autograd.grad((logprob + entropy).sum(), (hidden, weight))
        assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("masked", [False, True])
def test_broken_numbers_are_refused(broken: float, masked: bool) -> None:
    hidden, weight, _, labels = inputs(11)
    with torch.no_grad():
        hidden[4, 1] = broken
    allowed = ragged([[int(x), (int(x) + 1) % V] for x in labels]) if masked else None
    with pytest.raises(TrainingError, match="token 4 is not finite"):
        logprob_entropy(hidden, weight, labels, allowed=allowed)


def test_a_label_outside_its_mask_is_refused() -> None:
    hidden, weight, _, labels = inputs(12)
    with pytest.raises(TrainingError, match="allowed ids"):
        logprob_entropy(hidden, weight, labels, allowed=ragged([[(int(x) + 1) % V] for x in labels]))
    bias = torch.zeros(V, dtype=torch.float64)
    bias[labels[0]] = -torch.inf
    with pytest.raises(TrainingError, match="minus infinity"):
        logprob_entropy(hidden, weight, labels, bias=bias)


def test_arguments_that_do_not_fit() -> None:
    hidden, weight, _, labels = inputs(13)
    with pytest.raises(ValueError, match="expected hidden"):
        logprob_entropy(hidden, weight[:, :2], labels)
    with pytest.raises(ValueError, match="temperature"):
        logprob_entropy(hidden, weight, labels, temperature=0.0)
    for curve in ({"scale": 0.0}, {"soft_cap": -1.0}):
        with pytest.raises(ValueError, match="scale and soft cap of logits must be above 0"):
            logprob_entropy(hidden, weight, labels, **curve)
    with pytest.raises(ValueError, match="entries for"):
        logprob_entropy(hidden, weight, labels, allowed=ragged([[0]]))


@pytest.mark.parametrize("allowed", [None, ragged([])])
def test_no_tokens_at_all(allowed: Allowed | None) -> None:
    hidden, weight = torch.zeros(0, D, requires_grad=True), torch.zeros(V, D, requires_grad=True)
    logprob, entropy = logprob_entropy(hidden, weight, torch.zeros(0, dtype=torch.int64), allowed=allowed)
    assert logprob.shape == entropy.shape == (0,)
    gradients = torch.autograd.grad((logprob + entropy).sum(), (hidden, weight))
    assert gradients[1].eq(0).all()


def test_memory_follows_the_tile_and_not_the_vocabulary() -> None:
    """No tensor of the pass is larger than the head or a tile."""
    tokens, vocab, width = 64, 5000, 8
    sizes: list[int] = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.append(out.numel() if isinstance(out, Tensor) else 0)
            return out

    hidden = torch.randn(tokens, width, requires_grad=True)
    weight = torch.randn(vocab, width, requires_grad=True)
    with Largest():
        logprob, entropy = logprob_entropy(hidden, weight, torch.zeros(tokens).long(), chunk=16, vocab_chunk=500)
        torch.autograd.grad((logprob + entropy).sum(), (hidden, weight))
    assert max(sizes) <= vocab * width < tokens * vocab


@SETTINGS
@given(seed=st.integers(0, 10**6), cuts=st.sets(st.integers(1, N - 1), max_size=4))
def test_rows_do_not_depend_on_each_other(seed: int, cuts: set[int]) -> None:
    hidden, weight, _, labels = inputs(seed)
    whole = logprob_entropy(hidden, weight, labels)
    edges = [0, *sorted(cuts), N]
    parts = [logprob_entropy(hidden[a:b], weight, labels[a:b]) for a, b in pairwise(edges)]
    for i in (0, 1):
        torch.testing.assert_close(torch.cat([p[i] for p in parts]), whole[i], rtol=0, atol=1e-13)
