"""Attention by the mathematical kernel: mapped over tasks and differentiated twice, with torch's switches put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad, vmap
from torch.nn import functional as F

from metarun.layers.attention import plain_attention


def test_attention_has_second_derivatives_under_a_map() -> None:
    x = torch.randn(3, 2, 5, 4, dtype=torch.float64)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x).pow(3).sum()

    with plain_attention():
        found = vmap(grad(lambda x: grad(energy)(x).square().sum()))(x)
        for task in range(3):
            torch.testing.assert_close(found[task], grad(lambda x: grad(energy)(x).square().sum())(x[task]))


def test_the_fast_path_of_a_transformer_layer_is_off_inside_and_as_before_outside() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    x = torch.randn(3, 2, 5, 4)
    with torch.no_grad(), plain_attention():
        mapped = vmap(layer)(x)
    torch.testing.assert_close(mapped, torch.stack([layer(part) for part in x]))
    for before in (True, False):
        torch.backends.mha.set_fastpath_enabled(before)
        with pytest.raises(ZeroDivisionError), plain_attention():
            _ = 1 / int(torch.backends.mha.get_fastpath_enabled())
        assert torch.backends.mha.get_fastpath_enabled() is before
    torch.backends.mha.set_fastpath_enabled(True)
