import pickle

import pytest
import torch
from support.levers import tiny_model
from support.tokens import tiny

from palaestra.agents.engines.weights import copy_weights
from palaestra.agents.models import LoadedModel
from palaestra.distributed.weights import built, pack, skeleton_of, unpack


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_arrives_as_it_was(dtype: torch.dtype) -> None:
    model = tiny_model(3).to(dtype)
    skeleton = skeleton_of(LoadedModel(model, tiny(), "tiny"))
    assert all(p.numel() for p in model.parameters()), "the original keeps its weights"
    assert all(p.numel() == 0 for p in skeleton.model.parameters())
    message = pickle.dumps((skeleton, pack(model.state_dict())), protocol=5)
    sent, packing = pickle.loads(message)
    other = built(sent, packing, "cpu").model
    ids = torch.arange(12)[None]
    assert torch.equal(other(ids).logits, model(ids).logits)
    assert other.lm_head.weight is other.model.embed_tokens.weight, "what was tied still is"


def test_later_weights_replace_the_first() -> None:
    model, later = tiny_model(3), tiny_model(4)
    other = built(skeleton_of(LoadedModel(model, tiny(), "tiny")), pack(model.state_dict()), "cpu").model
    copy_weights(other, unpack(pack(later.state_dict())))
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), later.parameters(), strict=True))
    assert not torch.equal(other.lm_head.weight, model.lm_head.weight), "and are not shared with the sender"
