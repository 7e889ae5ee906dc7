"""The operations of a recorded program that C kernels replace. The results equal those of the function up to rounding."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from metarun import draws
from metarun.algorithms.maml import Maml
from metarun.backbones.classifier import Classifier
from metarun.backbones.conv4 import Conv4
from metarun.compute import kernels
from metarun.compute.kernels import normalisations
from metarun.compute.programs.interpreter import without_python
from metarun.compute.programs.recording import Recorded
from metarun.engine.training import gradients_of
from metarun.layers.conv import Geometry, conv2d, fold_tasks
from metarun.layers.normalise import statistics_of
from metarun.network import Network
from metarun.objectives import objective
from metarun.testing import double
from metarun.types import Episode, Examples

CL = torch.channels_last
MISSING = kernels.missing()
needs_kernels = pytest.mark.skipif(MISSING is not None, reason=f"no C kernels here: {MISSING}")


def normal(slot: str, *shape: int) -> Tensor:
    return draws.normal(draws.key(0, slot), *shape).contiguous(memory_format=CL)


def targets(module: GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


def gradients(x: Tensor, weight: Tensor, stride: int = 2, groups: int = 1) -> list[Tensor]:
    geometry = Geometry((stride, stride), (1, 1), (1, 1), groups)
    return list(torch.func.grad(lambda x, weight: conv2d(x, weight, None, geometry).square().sum(), argnums=(0, 1))(x, weight))


@needs_kernels
def test_a_program_takes_its_strided_convolutions_and_runs_without_python():
    x, weight = normal("x", 3, 32, 6, 6), normal("weight", 32, 16, 3, 3)
    module = kernels.rewrite(make_fx(lambda x, weight: gradients(x, weight, groups=2))(x, weight))
    names = targets(module)
    assert {"metarun.conv.default", "metarun.conv_input.default", "metarun.conv_weight.default"} <= set(names)
    assert not any("aten.convolution" in name for name in names)
    run = without_python(module)
    assert run is not None
    for found, exact in zip(run(x, weight), gradients(x.double(), weight.double(), groups=2), strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-6 * float(exact.abs().max()))


def batch(tasks: int, per_class: int) -> Examples:
    x = draws.normal(draws.key(0, "x", per_class), tasks, 3 * per_class, 1, 16, 16)
    return Examples(x, torch.eye(3).repeat(tasks, per_class, 1), None)


@needs_kernels
@pytest.mark.parametrize(
    ("pooling", "taken"),
    [
        ("stride", {"conv", "conv_input", "conv_weight", "column_statistics", "norm_relu", "norm_relu_backward"}),
        ("max", {"conv", "conv_input", "conv_weight", "column_statistics", "norm_pool", "norm_pool_backward"}),
    ],
)
def test_second_order_maml_on_conv4_keeps_its_gradient(pooling: str, taken: set[str], monkeypatch: pytest.MonkeyPatch):
    """C kernels in float32 against the function in float64. `taken` lists all kernels that fit this network."""
    programs: list[GraphModule] = []
    rewrite = kernels.rewrite
    monkeypatch.setattr(kernels, "rewrite", lambda module: programs.append(rewrite(module)) or programs[-1])
    monkeypatch.setattr(normalisations, "WORTH", 1)
    network = Network(Classifier(Conv4((1, 16, 16), 16, pooling), 3), "batch")
    algorithm = Maml(network, objective("classification"), inner_lr=0.1, inner_steps=2)
    params, state = algorithm.init(draws.key(0, "init"))
    part = (Episode(batch(2, 2), batch(2, 5)), draws.key(0, "train", torch.arange(2)))

    def train(shared: Any, part: Any) -> Any:
        return gradients_of(algorithm, *shared, *part, torch.tensor(0))[:2]

    found, losses = Recorded(train, c_kernels=True).program((params, state), part).call((params, state), part)
    exact, exact_losses = train(double((params, state)), double(part))
    torch.testing.assert_close(losses.double(), exact_losses, rtol=1e-4, atol=0)
    scale = max(float(gradient.abs().max()) for gradient in exact.values())
    for name, gradient in exact.items():
        torch.testing.assert_close(found[name].double(), gradient, rtol=0, atol=1e-3 * scale)
    assert {name.split(".")[1] for name in targets(programs[0]) if name.startswith("metarun.")} == taken


@needs_kernels
@pytest.mark.parametrize(
    ("x", "weight", "stride"),
    [
        (normal("x", 3, 16, 6, 6).double(), normal("weight", 16, 16, 3, 3).double(), 2),
        (normal("x", 3, 3, 6, 6), normal("weight", 16, 3, 3, 3), 2),
        (normal("x", 3, 16, 6, 6), normal("weight", 24, 16, 3, 3), 2),
        (normal("x", 3, 128, 6, 6), normal("weight", 64, 128, 3, 3), 2),
    ],
    ids=["float64", "few channels in", "channels out that fill no vector", "weights beyond the cache"],
)
def test_what_does_not_suit_stays_with_torch(x: Tensor, weight: Tensor, stride: int):
    module = make_fx(lambda x, weight: gradients(x, weight, stride))(x, weight)
    expected = targets(module)
    assert [name for name in targets(kernels.rewrite(module)) if "conv" in name] == [name for name in expected if "conv" in name]


@needs_kernels
@pytest.mark.parametrize(("size", "taken"), [(3, {"conv_weight"}), (6, {"conv", "conv_input", "conv_weight"})])
def test_without_strides_what_is_not_done_in_tiles_keeps_all_but_the_derivative_by_the_weight(size: int, taken: set[str]):
    x, weight = normal("x", 3, 16, size, size), normal("w", 16, 16, 3, 3)
    module = kernels.rewrite(make_fx(lambda x, weight: gradients(x, weight, stride=1))(x, weight))
    assert {name.split(".")[1] for name in targets(module) if name.startswith("metarun.")} == taken


def norm_and_pool(x: Tensor, kernel: int, turned: bool) -> list[Tensor]:
    normalised = torch.native_batch_norm(x, None, None, x.mean((0, 2, 3)), x.var((0, 2, 3)), False, 0.0, 1e-5)[0]
    if turned:
        normalised = normalised.view(2, -1, *x.shape[1:]).permute(1, 0, 2, 3, 4).reshape(x.shape)
    return [*torch.ops.aten.max_pool2d_with_indices(normalised, [kernel, kernel], [2, 2])]


@needs_kernels
@pytest.mark.parametrize(("kernel", "turned", "taken"), [(2, False, True), (3, False, False), (2, True, False)])
def test_images_are_pooled_as_they_are_normalised_only_by_halves_and_in_their_order(kernel: int, turned: bool, taken: bool):
    x = normal("x", 4, 64, 8, 8)
    module = make_fx(lambda x: norm_and_pool(x, kernel, turned))(x)
    wanted = module(x)
    module = kernels.rewrite(module)
    assert ("metarun.norm_pool.default" in targets(module)) is taken
    torch.testing.assert_close(module(x), wanted)


def scaled_and_pooled(x: Tensor, scale: Tensor, shift: Tensor, *, turned: bool = False, **number: float) -> Tensor:
    """Two tasks, normalised by numbers that they share, as metric methods are when they are scored; turned: and mixed up behind it."""
    tasks = torch.addcmul(shift, x.view(2, -1, *x.shape[1:]), scale, **number)
    y = tasks.transpose(0, 1).reshape(x.shape) if turned else tasks.view(x.shape)
    out: Tensor = torch.ops.aten.max_pool2d_with_indices(y, [2, 2], [2, 2])[0]
    return out


@needs_kernels
@pytest.mark.parametrize(
    ("shape", "given", "taken"),
    [
        ((1, 64, 1, 1), {}, True),
        ((1, 64, 1, 1), {"turned": True}, False),
        ((1, 64, 1, 1), {"value": 2.0}, False),
        ((1, 64, 9, 1), {}, False),
        ((1, 1, 1, 1), {}, False),
        ((64,), {}, False),
    ],
    ids=["by channel", "another order", "a factor beside it", "by row", "one for all", "by column"],
)
def test_images_that_are_scored_with_shared_statistics_are_pooled_as_they_are_scaled(
    shape: tuple[int, ...], given: dict[str, Any], taken: bool
):
    x, scale, shift = normal("x", 4, 64, 9, 64), *(draws.normal(draws.key(0, slot), *shape) for slot in ("scale", "shift"))
    module = make_fx(lambda *tensors: scaled_and_pooled(*tensors, **given))(x, scale, shift)
    wanted = module(x, scale, shift)
    module = kernels.rewrite(module)
    assert ("metarun.scaled_maxima.default" in targets(module)) is taken
    torch.testing.assert_close(module(x, scale, shift), wanted)


@needs_kernels
@pytest.mark.parametrize("shape", [(4, 64, 64, 8), (4, 1, 64, 64)], ids=["rows in the place of channels", "one channel for all"])
def test_images_that_are_scaled_along_another_axis_stay_with_torch(shape: tuple[int, ...]):
    x, scale, shift = normal("x", *shape), normal("scale", 1, 64, 1, 1), normal("shift", 1, 64, 1, 1)

    def pooled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y = torch.addcmul(shift, x.permute(0, 2, 1, 3), scale).permute(0, 2, 1, 3) if shape[1] > 1 else torch.addcmul(shift, x, scale)
        out: Tensor = torch.ops.aten.max_pool2d_with_indices(y, [2, 2], [2, 2])[0]
        return out

    module = kernels.rewrite(make_fx(pooled)(x, scale, shift))
    assert not any("metarun" in name for name in targets(module))
    torch.testing.assert_close(module(x, scale, shift), pooled(x, scale, shift))


@needs_kernels
def test_where_nobody_asks_for_places_only_the_maxima_are_found():
    x = normal("x", 4, 64, 8, 8)
    module = make_fx(lambda x: norm_and_pool(x, 2, False)[0])(x)
    wanted = module(x)
    module = kernels.rewrite(module)
    assert [name for name in targets(module) if "pool" in name or "maxima" in name] == ["metarun.norm_maxima.default"]
    torch.testing.assert_close(module(x), wanted)


@needs_kernels
@pytest.mark.parametrize("order", [(1, 0, 2, 3, 4), (0, 1, 2, 3, 4)])
def test_views_between_normalisation_and_rectification_stay_as_they_are(order: tuple[int, ...]):
    """The gradient through two tasks beside the channels, which are parted before they are rectified."""
    x, weight, bias = normal("x", 4, 64, 8, 8), torch.full((64,), 1.5), torch.full((64,), 0.1)

    def forward_and_back(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        normalised = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, 1e-5)[0]
        y = normalised.view(4, 2, 32, 8, 8).permute(order).relu()
        g = torch.ops.aten.threshold_backward(y * y - 1.0, y, 0)
        back = [order.index(axis) for axis in range(5)]
        given = (g.permute(back).view(x.shape), x, weight, None, None, mean, (var + 1e-5).rsqrt(), True, 1e-5, (True, True, True))
        return [y, *torch.ops.aten.native_batch_norm_backward(*given)]

    module = make_fx(forward_and_back)(x, weight, bias)
    wanted = module(x, weight, bias)
    module = kernels.rewrite(module)
    assert [name for name in targets(module) if name.startswith("metarun.")] == [
        "metarun.norm_relu.default",
        "metarun.norm_relu_backward.default",
    ]
    for found, exact in zip(module(x, weight, bias), wanted, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("other", ["none", "images", "weight", "mean", "variance", "eps", "order", "threshold", "no normalisation"])
def test_the_derivative_of_another_normalisation_than_the_one_that_was_rectified_stays_with_torch(other: str):
    x, weight = normal("x", 4, 64, 8, 8), torch.full((64,), 1.5)

    def forward_and_back(x: Tensor, weight: Tensor) -> list[Tensor]:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        y = torch.native_batch_norm(x, weight, None, mean, var, False, 0.0, 1e-5)[0].view(4, 2, 32, 8, 8).relu()
        y = y if other != "no normalisation" else x.view(4, 2, 32, 8, 8).relu()
        g = torch.ops.aten.threshold_backward(y * y - 1.0, y, 0 if other != "threshold" else 0.5)
        if other == "order":
            g = g.permute(1, 0, 2, 3, 4).reshape(4, 2, 32, 8, 8)
        images, by = x if other != "images" else x + 1.0, weight if other != "weight" else weight + 1.0
        inverse = ((var if other != "variance" else var + 1.0) + (1e-5 if other != "eps" else 1e-3)).rsqrt()
        given = (images, by, None, None, mean if other != "mean" else mean + 1.0, inverse, True, 1e-5, (True, True, True))
        return [*torch.ops.aten.native_batch_norm_backward(g.view(x.shape), *given)]

    module = make_fx(forward_and_back)(x, weight)
    wanted = module(x, weight)
    module = kernels.rewrite(module)
    assert ("metarun.norm_relu_backward.default" in targets(module)) is (other == "none")
    for found, exact in zip(module(x, weight), wanted, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


@needs_kernels
def test_the_derivative_is_taken_through_copies_that_only_change_the_order_in_memory():
    """Two tasks that share a convolution, one after the other in memory, which are normalised beside one another."""
    x, weight, g = normal("x", 8, 32, 8, 8), torch.full((64,), 1.5), normal("g", 8, 32, 8, 8)

    def forward_and_back(x: Tensor, weight: Tensor, g: Tensor) -> list[Tensor]:
        images, gradient = (fold_tasks(each.unflatten(0, (2, 4)), 0, 1) for each in (x, g))
        mean, var = images.mean((0, 2, 3)), images.var((0, 2, 3), correction=0)
        y = torch.native_batch_norm(images, weight, None, mean, var, False, 0.0, 1e-5)[0].unflatten(1, (2, 32)).movedim(1, 0).relu()
        passed = torch.ops.aten.threshold_backward(g.unflatten(0, (2, 4)), y, 0)
        given = (images, weight, None, None, mean, (var + 1e-5).rsqrt(), True, 1e-5, (True, True, True))
        return [*torch.ops.aten.native_batch_norm_backward(fold_tasks(passed, 0, 1), *given), gradient]

    module = make_fx(forward_and_back)(x, weight, g)
    wanted = module(x, weight, g)
    module = kernels.rewrite(module)
    assert "metarun.norm_relu_backward.default" in targets(module)
    for found, exact in zip(module(x, weight, g), wanted, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


SUMS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "as it is": (lambda dx: dx.sum([0, 2, 3]), True),
    "counted from the end": (lambda dx: dx.sum([0, -2, -1], keepdim=True), True),
    "viewed there and back": (lambda dx: dx.view(4, 2, 32, 8, 8).view(4, 64, 8, 8).sum([0, 2, 3]), True),
    "two tasks beside the channels": (lambda dx: dx.view(4, 2, 32, 8, 8).permute(1, 0, 2, 3, 4).sum([1, 3, 4]), True),
    "pixels only": (lambda dx: dx.sum([2, 3]), False),
    "some channels": (lambda dx: dx.view(4, 2, 32, 8, 8).sum([0, 1, 3, 4]), False),
    "as many of other places": (lambda dx: dx.view(2, 2, 2, 32, 8, 8).sum([1, 2, 4, 5]), False),
    "in another order": (lambda dx: dx.permute(0, 2, 3, 1).view(64, 4, 8, 8).sum([1, 2, 3]), False),
    "turned": (lambda dx: dx.permute(2, 1, 0, 3).sum([1, 2, 3]), False),
    "in float64": (lambda dx: dx.sum([0, 2, 3], dtype=torch.float64), False),
}


@needs_kernels
@pytest.mark.parametrize("name", SUMS)
def test_the_derivative_by_a_bias_that_is_normalised_away_is_nothing(name: str):
    x, g = normal("x", 4, 64, 8, 8), normal("g", 4, 64, 8, 8)
    summed, taken = SUMS[name]

    def back(x: Tensor, g: Tensor) -> list[Tensor]:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        y = torch.native_batch_norm(x, None, None, mean, var, False, 0.0, 1e-5)[0].relu()
        given = (x, None, None, None, mean, (var + 1e-5).rsqrt(), True, 1e-5, (True, True, True))
        dx = torch.ops.aten.native_batch_norm_backward(torch.ops.aten.threshold_backward(g, y, 0), *given)[0]
        return [dx, summed(dx.contiguous(memory_format=CL))]

    module = make_fx(back)(x, g)
    wanted = module(x, g)
    module = kernels.rewrite(module)
    assert "metarun.norm_relu_backward.default" in targets(module)
    assert ("aten.new_zeros.default" in targets(module)) is taken
    for found, exact in zip(module(x, g), wanted, strict=True):
        assert found.dtype == exact.dtype
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


@needs_kernels
def test_images_that_are_read_by_others_too_stay_with_torch():
    def both(x: Tensor) -> list[Tensor]:
        normalised = torch.native_batch_norm(x, None, None, x.mean((0, 2, 3)), x.var((0, 2, 3)), False, 0.0, 1e-5)[0]
        return [*torch.ops.aten.max_pool2d_with_indices(normalised, [2, 2]), normalised]

    x = normal("x", 4, 64, 8, 8)
    assert not any(name.startswith("metarun.layers.norm") for name in targets(kernels.rewrite(make_fx(both)(x))))


@needs_kernels
def test_a_program_takes_its_statistics_to_the_same_bits():
    x = normal("x", 5, 64, 8, 8)
    module = make_fx(statistics_of)(x)
    expected = module(x)
    module = kernels.rewrite(module)
    assert "metarun.column_statistics.default" in targets(module)
    for found, wanted in zip(module(x), expected, strict=True):
        assert torch.equal(found, wanted)


@needs_kernels
def test_threads_that_run_one_program_get_its_bits():
    x, weight = normal("x", 20, 64, 14, 14), normal("weight", 64, 64, 3, 3)
    program = Recorded(gradients, c_kernels=True).program(x, weight)
    expected, found = program.call(x, weight), []
    threads = [threading.Thread(target=lambda: found.append(program.call(x, weight))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(one, other) for results in found for one, other in zip(results, expected, strict=True))
