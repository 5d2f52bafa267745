import pytest
import torch
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from palaestra.agents.attention import NAME, plain_attention, use_plain_attention


def llama(kv_heads: int, attention: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        initializer_range=0.3,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).double()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_values_and_gradients_are_those_of_the_reference(kv_heads: int, padded: bool) -> None:
    ids = torch.randint(0, 20, (3, 7))
    mask = (torch.arange(7) < torch.tensor([[7], [4], [2]])).long() if padded else None

    def loss_and_gradient(attention: str) -> tuple[Tensor, list[Tensor]]:
        model = llama(kv_heads, attention)
        logits = model(ids, attention_mask=mask).logits
        loss = (logits.log_softmax(-1)[..., 3] * (1 if mask is None else mask)).sum()
        return loss, list(torch.autograd.grad(loss, list(model.parameters())))

    (loss, gradient), (expected, expected_gradient) = loss_and_gradient(NAME), loss_and_gradient("sdpa")
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # the model's norms are single precision


def test_no_mask_means_causal_and_a_boolean_one_is_understood() -> None:
    query, key, value = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    causal = torch.ones(3, 5, dtype=torch.bool).tril(2)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), attn_mask=causal
    )
    for mask in (None, causal[None, None]):
        output, _ = plain_attention(torch.nn.Module(), query, key, value, mask)
        torch.testing.assert_close(output.transpose(1, 2), expected)


def test_models_with_an_attention_of_their_own_keep_it() -> None:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    gemma = Gemma2ForCausalLM(Gemma2Config(vocab_size=8, num_key_value_heads=1, head_dim=8, **shape))
    assert not use_plain_attention(gemma)
    assert use_plain_attention(llama(1, "sdpa"))
