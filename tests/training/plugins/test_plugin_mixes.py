"""What looks at tokens and entropy works together: weights multiply, marks and memories keep apart."""

from __future__ import annotations

import math

import torch
from support.gating import assert_micro_batches_change_nothing
from support.updates import MOMENT, learner, played

from palaestra.training.checkpoint import fingerprint
from palaestra.training.forward import Flat, Scores
from palaestra.training.seams import Moment
from palaestra.training.step import Source, mark

ALL = [
    "algorithm.plugins=[entropy_topk, steer, clip_b, mpt_mask, lp_reg, siren, adaptive_entropy, entrocraft]",
    "algorithm.settings.entropy_topk.rho=0.7",
    "algorithm.settings.steer.w_min=0.5",
    "algorithm.settings.clip_b.mu=1",
    "algorithm.settings.mpt_mask={tau: 0.003, sigma: 99}",
    "algorithm.settings.lp_reg={rho: 0.5, kappa: 0.7}",
    "algorithm.settings.siren.coeff=1",
    "algorithm.settings.adaptive_entropy={start: 0.1, target: 2}",
]


def test_all_at_once_in_micro_batches() -> None:
    assert_micro_batches_change_nothing(*ALL)


def test_all_at_once_after_a_resume() -> None:
    whole, resumed = (learner("algorithm.name=dapo", *ALL, mini_batches=2) for _ in range(2))
    whole.update(played(), Moment(0, 10))
    resumed.policy.model.load_state_dict(whole.policy.model.state_dict())
    resumed.optimiser.load_state_tensors(whole.optimiser.state_tensors())
    resumed.algorithm.load_state_dict(whole.algorithm.state_dict())
    metrics = [each.update(played(1), Moment(9, 10)).metrics for each in (whole, resumed)]
    assert fingerprint(whole.policy.model) == fingerprint(resumed.policy.model)
    assert metrics[0] == metrics[1]
    assert all(math.isfinite(value) for value in metrics[0].values() if value is not None)


def test_weights_multiply() -> None:
    """Two gates that each drop tokens leave what both leave."""
    batch, found = played(), {}
    for plugins in (["entropy_topk"], ["mpt_mask"], ["entropy_topk", "mpt_mask"]):
        options = [f"algorithm.plugins=[{', '.join(plugins)}]", ALL[1], ALL[4]]
        subject = learner("algorithm.name=grpo", *options)
        scores = subject.score(batch)
        scored = batch.with_(old_logprob=scores.logprob, old_entropy=scores.entropy)
        scored = scored.with_(advantage=subject.algorithm.advantage(scored))
        flat = Flat.of(scored)
        source = Source(scored, flat, scored.rows, (), subject.algorithm.parts.gates)
        at = scored.mask.nonzero(as_tuple=True)
        found[len(plugins), plugins[0]] = mark(
            source, Scores(scores.logprob[at], scores.entropy[at], {}), MOMENT
        ).weight
    first, second, both = found.values()
    assert first is not None
    assert second is not None
    assert both is not None
    assert torch.equal(both, first * second)
    assert 0 < int((both == 0).sum()) > max(int((first == 0).sum()), int((second == 0).sum()))
