"""Lazy layers: their shapes, and the sentence where the first pass fails."""

from __future__ import annotations

import pytest
import torch
from own_modules import Embedding
from torch import nn

from metarun.errors import UserError
from metarun.wiring.lazy import materialise

X = torch.rand(5, 1, 8, 8)


def test_lazy_layers_get_their_shapes_and_other_buffers_stay() -> None:
    plain, lazy = nn.BatchNorm2d(4), nn.LazyBatchNorm2d()
    module = Embedding(plain, lazy, nn.LazyConv2d(3, 1))
    materialise(module, X, "Mine")
    assert module.parts[2].weight.shape == (3, 4, 1, 1)
    for norm in (plain, lazy):
        assert torch.equal(norm.running_mean, torch.zeros(4))
        assert int(norm.num_batches_tracked) == 0


def test_a_lazy_module_that_fails_is_one_sentence() -> None:
    module = Embedding(nn.Flatten(), nn.LazyLinear(3), nn.Linear(7, 3))
    with pytest.raises(UserError, match=r"^backbone Mine cannot take this task's inputs of shape \(1, 8, 8\): mat1 and mat2 shapes"):
        materialise(module, X, "Mine")


def test_a_lazy_layer_that_no_pass_reaches_is_one_sentence() -> None:
    module = Embedding()
    module.head = nn.LazyLinear(3)
    with pytest.raises(UserError, match=r"^backbone Mine has the lazy layer 'head', which its forward does not use; remove it\.$"):
        materialise(module, X, "Mine")
