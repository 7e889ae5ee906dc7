"""A layer of the transformer against numbers by hand and against torch's own layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from metarun import draws, testing
from metarun.algorithms.parts.attention import Attended, attend, encode_context, encode_targets, layer_init, project
from metarun.types import Params

KEY, HEADS, WIDTH = draws.key(0, "attention"), 2, 6


def normal(name: str, *shape: int) -> Tensor:
    return draws.normal(draws.fold(KEY, name), *shape, dtype=torch.float64)


def layer() -> Params:
    params: Params = testing.double(layer_init(KEY, WIDTH, 5))
    return {name: value + 0.3 * normal(name, *value.shape) for name, value in params.items()}  # scales and shifts too


def torch_layer(params: Params) -> nn.TransformerEncoderLayer:
    """Return torch's layer with the same parameters."""
    reference = nn.TransformerEncoderLayer(WIDTH, HEADS, 5, dropout=0.0, batch_first=True).double()
    names = {
        "self_attn.in_proj_": "project.",
        "self_attn.out_proj.": "join.",
        "linear1.": "perceptron.0.",
        "linear2.": "perceptron.1.",
        "norm1.": "norm_attention.",
        "norm2.": "norm_perceptron.",
    }
    reference.load_state_dict({theirs + part: params[ours + part] for theirs, ours in names.items() for part in ("weight", "bias")})
    return reference


def test_attention_by_hand():
    """One head of size 1. Scores 1·0 = 0 and 1·log 3 = log 3 have the shares 1/4 and 3/4 of the values 8 and 16; with the own key log 4
    of value 0 the shares are 1/8, 3/8 and 4/8.
    """
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    context = Attended(torch.tensor([0.0, math.log(3.0)], dtype=torch.float64)[:, None, None], 8.0 * torch.tensor([[[1.0]], [[2.0]]]), None)
    context = testing.double(context)
    assert float(attend(one, context)) == pytest.approx(0.25 * 8 + 0.75 * 16)
    assert float(attend(one, context, own=(math.log(4.0) * one, 0.0 * one))) == pytest.approx(8 / 8 + 3 * 16 / 8)
    hidden = context._replace(mask=torch.tensor([True, False]))
    assert float(attend(one, hidden)) == 8.0
    assert float(attend(one, hidden, own=(0.0 * one, 2.0 * one))) == pytest.approx(5.0)


def test_context_and_targets_are_those_of_torchs_layer_under_the_mask_of_the_paper():
    """Rows are tokens that ask. Context tokens see the context; a target sees the context and itself."""
    params, tokens = layer(), normal("tokens", 7, WIDTH)
    hidden = torch.ones(7, 7, dtype=torch.bool)
    hidden[:, :4] = False
    hidden[range(4, 7), range(4, 7)] = False
    expected = torch_layer(params)(tokens[None], src_mask=hidden)[0]
    encoded, context = encode_context(params, tokens[:4], HEADS, None)
    targets = encode_targets(params, tokens[4:], HEADS, context)
    torch.testing.assert_close(torch.cat([encoded, targets]), expected, rtol=1e-9, atol=1e-9)


def test_padding_tokens_change_no_other_token():
    params, tokens = layer(), normal("tokens", 5, WIDTH)
    mask = torch.tensor([True, True, False, True, False])
    short, context = encode_context(params, tokens[mask], HEADS, None)
    long, padded = encode_context(params, tokens, HEADS, mask)
    torch.testing.assert_close(long[mask], short, rtol=1e-12, atol=1e-12)
    asked = normal("asked", 3, WIDTH)
    torch.testing.assert_close(
        encode_targets(params, asked, HEADS, padded), encode_targets(params, asked, HEADS, context), rtol=1e-12, atol=1e-12
    )


def test_without_a_real_context_a_target_sees_itself_alone():
    params, asked = layer(), normal("asked", 2, WIDTH)
    _, context = encode_context(params, normal("tokens", 3, WIDTH), HEADS, torch.zeros(3, dtype=torch.bool))
    hidden = ~torch.eye(2, dtype=torch.bool)
    expected = torch_layer(params)(asked[None], src_mask=hidden)[0]
    torch.testing.assert_close(encode_targets(params, asked, HEADS, context), expected, rtol=1e-9, atol=1e-9)


def test_projections_have_one_row_for_each_head():
    query, key, value = project(layer(), normal("tokens", 5, WIDTH), HEADS)
    assert query.shape == key.shape == value.shape == (5, HEADS, WIDTH // HEADS)


def test_the_gradient_of_a_layer_equals_finite_differences():
    params, asked = layer(), normal("asked", 2, WIDTH)
    tokens = normal("tokens", 3, WIDTH).requires_grad_()
    weight = params["project.weight"].requires_grad_()

    def outputs(tokens: Tensor, weight: Tensor) -> Tensor:
        changed = {**params, "project.weight": weight}
        encoded, context = encode_context(changed, tokens, HEADS, torch.tensor([True, False, True]))
        return torch.cat([encoded[[0, 2]], encode_targets(changed, asked, HEADS, context)])

    assert gradcheck(outputs, (tokens, weight))
