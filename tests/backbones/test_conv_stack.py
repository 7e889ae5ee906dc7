"""Convolutions without padding: the sizes of the two papers, and small images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from metarun.backbones.conv_stack import ConvStack, final_sides
from metarun.errors import UserError

OML = {"strides": (2, 1, 2, 1, 2, 2), "pools": (1,) * 6}


def test_the_embeddings_have_the_sizes_of_the_papers():
    assert final_sides((1, 28, 28), (1, 1, 1), (2, 2, 1)) == (3, 3)
    assert final_sides((1, 84, 84), **OML) == (3, 3)
    with torch.device("meta"):
        assert ConvStack((1, 28, 28)).out_features == ConvStack((1, 84, 84), **OML).out_features == 2304


@pytest.mark.parametrize(("shape", "strides", "pools"), [((1, 28, 28), (1, 1, 1), (2, 2, 1)), ((3, 20, 31), (2, 1), (1, 3))])
def test_the_width_is_that_of_the_output(shape: tuple[int, int, int], strides: tuple[int, ...], pools: tuple[int, ...]):
    module = ConvStack(shape, 2, strides, pools)
    assert module(torch.zeros(2, *shape)).shape == (2, module.out_features)


def test_weights_start_as_he_et_al_propose_and_biases_at_zero():
    torch.manual_seed(0)
    last = [layer for layer in ConvStack((1, 28, 28), 64).modules() if isinstance(layer, nn.Conv2d)][-1]
    assert float(last.weight.detach().std()) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)
    assert last.bias is not None
    assert last.bias.abs().max() == 0.0


def test_a_network_may_have_no_normalisation():
    layers = [type(layer) for layer in ConvStack((1, 28, 28), 4, normalised=False).modules()]
    assert nn.BatchNorm2d not in layers
    assert nn.BatchNorm2d in [type(layer) for layer in ConvStack((1, 28, 28), 4).modules()]


def test_images_that_are_too_small_and_lists_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"images of 8x8 are too small for these 3 blocks, which need at least 18x18"):
        ConvStack((1, 8, 8))
    assert min(final_sides((1, 18, 18), (1, 1, 1), (2, 2, 1))) == 1
    with pytest.raises(UserError, match="must have one number for each block; they have 2 and 3"):
        ConvStack((1, 28, 28), strides=(1, 1))
    with pytest.raises(UserError, match=r"need images .* the shape \(7,\). Use backbone=mlp"):
        ConvStack((7,))
