"""Adopted layers: the same objects with the same parameters, which compute what torch computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metarun.layers.adopt import KINDS, adopt_layers
from metarun.layers.norm import Norm, NormPass


class NormThenRelu(nn.BatchNorm2d):
    """A subclass with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class Doubled(NormThenRelu):
    """A subclass of a subclass, with a parameter of its own."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, input: Tensor) -> Tensor:
        return self.factor * nn.BatchNorm2d.forward(self, input) if input.dim() == 1 else self.factor * super().forward(input)


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss_and_gradients(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    loss = module(x).pow(3).sum()
    return loss, *torch.autograd.grad(loss, list(module.parameters()))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.BatchNorm2d(3, eps=0.1),
        lambda: nn.BatchNorm2d(3, affine=False, momentum=None, track_running_stats=False),
        lambda: nn.SyncBatchNorm(3),
        lambda: NormThenRelu(3),
        lambda: Doubled(3),
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.BatchNorm2d(3), n_power_iterations=30).eval().train(),
    ],
)
def test_layers_and_their_gradients_are_torchs_after_the_adoption(layer: Any) -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), layer()).double()
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.3 * images(*value.shape))
    x = images(5, 3, 6, 6)
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    expected, before = loss_and_gradients(module, x), [id(value) for value in module.parameters()]
    module.load_state_dict(buffers, strict=False)  # the power iteration of spectral norm starts where it started
    adopt_layers(module)
    for mine, theirs in zip(loss_and_gradients(module, x), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    assert [id(value) for value in module.parameters()] == before


@pytest.mark.parametrize(("weight", "bias"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("masked", [True, False])
def test_a_norm_may_lack_its_scale_or_its_shift(weight: bool, bias: bool, masked: bool) -> None:
    layer, x = nn.BatchNorm1d(3).double(), images(6, 3).requires_grad_()
    for name, kept in (("weight", weight), ("bias", bias)):
        setattr(layer, name, nn.Parameter(images(3)) if kept else None)
    leaves = [x, *layer.parameters()]
    expected = torch.autograd.grad(layer(x).pow(3).sum(), leaves)
    (norm,) = adopt_layers(layer)
    norm.norm_pass = NormPass("own", torch.ones(6, dtype=torch.bool) if masked else None)
    for mine, theirs in zip(torch.autograd.grad(layer(x).pow(3).sum(), leaves), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_a_layer_keeps_its_identity_and_each_place_that_refers_to_it() -> None:
    convolution, norm, heard = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), []
    module = nn.Sequential(convolution, norm, nn.Sequential(nn.Identity(), norm))
    module.plain_list = [convolution, norm]  # type: ignore[assignment]
    norm.register_forward_hook(lambda layer, args, out: heard.append(layer))
    assert adopt_layers(module) == [norm]
    assert module[0] is module.plain_list[0] is convolution
    assert module[1] is module[2][1] is module.plain_list[1] is norm
    module(torch.randn(4, 1, 5, 5))
    assert heard == [norm, norm]
    assert adopt_layers(module) == [norm], "a second adoption changes nothing"
    assert isinstance(norm, nn.BatchNorm2d)


def test_a_norm_in_eval_mode_keeps_its_own_statistics() -> None:
    layer = nn.BatchNorm2d(2).eval()
    assert adopt_layers(layer) == []
    assert type(layer) is nn.BatchNorm2d
    assert isinstance(adopt_layers(nn.BatchNorm2d(2, track_running_stats=False).eval())[0], Norm)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, nn.GroupNorm | nn.Conv2d | nn.RNNBase)])
def test_a_subclass_of_the_users_keeps_torchs_computation(kind: type[nn.Module]) -> None:
    own: Any = type("Own", (kind,), {})
    layer = own(2, 2, 1)
    adopt_layers(layer)
    assert type(layer) is own
