"""Backbones as users write them, for images (B, 1, 8, 8). `EQUAL` compute what torch computes; `REFUSED` get a sentence.

A module of `EQUAL` is a function that builds the module. A module of `REFUSED` comes with a pattern of its sentence.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

Module = Callable[[], nn.Module]


class Embedding(nn.Module):
    """A convolution to 4 channels of 4x4 pixels, the parts, and the mean over all places."""

    def __init__(self, *parts: nn.Module, out_features: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.parts = nn.ModuleList(parts)
        self.out_features = out_features

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for part in self.parts:
            x = part(x)
        return x.flatten(2).mean(dim=2) if isinstance(x, Tensor) and x.dim() > 2 else x


class Call(nn.Module):
    """A part that calls a function of the input and of its modules."""

    def __init__(self, function: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.inner)


class NormThenTanh(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).tanh()


def norm_with_its_own_forward() -> nn.Module:
    return Embedding(NormThenTanh(4), nn.Conv2d(4, 4, 3), NormThenTanh(4))


class PlainList(Embedding):
    def __init__(self) -> None:
        super().__init__()
        self.add_module("first", nn.Conv2d(4, 4, 3))
        self.add_module("second", nn.BatchNorm2d(4))
        self.layers = [self.first, self.second, self.first]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(F.pad(x, (1, 1, 1, 1)))
        return x.mean(dim=(2, 3))


def a_layer_under_two_names() -> nn.Module:
    convolution, norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
    return Embedding(nn.Sequential(convolution, norm), nn.Tanh(), nn.Sequential(convolution, nn.Sequential(norm)))


def tied_weights() -> nn.Module:
    first, second = nn.Linear(4, 6, bias=False), nn.Linear(4, 6)
    second.weight = first.weight
    return Embedding(Call(lambda x, a, b: a(x.mean((2, 3))).tanh() + b(x.amax((2, 3))), first, second), out_features=6)


def frozen_stem() -> nn.Module:
    module = Embedding(nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 3))
    module.stem.requires_grad_(False)
    return module


class Projection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("features", torch.randn(4, 6))
        self.register_buffer("order", torch.randperm(6))

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean(dim=(2, 3)) @ self.features)[:, self.order].tanh()


def random_projection() -> nn.Module:
    return Embedding(Projection(), out_features=6)


def weight_norm_old() -> nn.Module:
    with torch.no_grad():
        return Embedding(nn.utils.weight_norm(nn.Conv2d(4, 4, 3)), nn.Tanh())


def weight_norm_new() -> nn.Module:
    return Embedding(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), nn.BatchNorm2d(4), nn.Tanh())


class Squared(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.square()


def own_parametrization() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    for layer in (norm, convolution := nn.Conv2d(4, 4, 3)):
        parametrize.register_parametrization(layer, "weight", Squared())
    return Embedding(convolution, norm, nn.Tanh())


def spectral_norm_in_eval() -> nn.Module:
    old = nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)).eval()
    return Embedding(nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)).eval(), nn.Tanh(), old)


def group_norm() -> nn.Module:
    return Embedding(nn.GroupNorm(2, 4), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.GroupNorm(1, 4, affine=False))


def layer_and_instance_norm() -> nn.Module:
    return Embedding(nn.LayerNorm([4, 4, 4]), nn.Tanh(), nn.InstanceNorm2d(4, affine=True), nn.Conv2d(4, 4, 3), nn.Tanh())


def rows_of(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def functional_layer_norm() -> nn.Module:
    """torch maps its second derivative wrongly, without an error."""
    norm = nn.LayerNorm(4)  # its parameters alone
    layer = Call(lambda x, norm: F.layer_norm(rows_of(x), (4,), norm.weight, norm.bias).tanh(), norm)
    return Embedding(layer, Call(lambda x, line: line(x).mean(dim=1), nn.Linear(4, 4)))


def recurrent() -> nn.Module:
    layers = nn.GRU(4, 5, batch_first=True, bidirectional=True), nn.LSTM(10, 4, batch_first=True), nn.RNN(4, 4, batch_first=True)
    return Embedding(Call(lambda x, gru, lstm, rnn: rnn(lstm(gru(rows_of(x))[0])[0])[0][:, -1], *layers))


def attention() -> nn.Module:
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    return Embedding(Call(lambda x, attend: attend(*[rows_of(x)] * 3, need_weights=False)[0].mean(dim=1), layer))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, activation="gelu")
    return Embedding(Call(lambda x, layer: layer(rows_of(x)).mean(dim=1), layer))


def own_attention() -> nn.Module:
    def attend(x: Tensor, project: nn.Module) -> Tensor:
        return F.scaled_dot_product_attention(*project(rows_of(x)).chunk(3, dim=-1), is_causal=True).mean(dim=1)

    return Embedding(Call(attend, nn.Linear(4, 12)))


def transformer_in_eval() -> nn.Module:
    """Its dropout does nothing, and torch would take the fast path of inference."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True).eval()
    return Embedding(Call(lambda x, layer: layer(rows_of(x)).mean(dim=1), layer))


def hook_on_a_norm() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    norm.register_forward_hook(lambda layer, args, out: out.tanh())
    norm.register_forward_pre_hook(lambda layer, args: (2.0 * args[0] + 1.0,))
    return Embedding(norm, nn.Conv2d(4, 4, 3))


def norms_of_every_form() -> nn.Module:
    bare, shifted = nn.BatchNorm2d(4, track_running_stats=False, eps=0.3), nn.BatchNorm2d(4, momentum=None)
    bare.bias = None
    shifted.weight = None
    parts = (
        bare,
        nn.Conv2d(4, 4, 1),
        nn.Tanh(),
        shifted,
        nn.BatchNorm2d(4, affine=False),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3),
        nn.SyncBatchNorm(4),
    )
    return Embedding(*parts, nn.Tanh())


def pretrained_norm_in_eval() -> nn.Module:
    norm = nn.BatchNorm2d(4).eval()
    nn.init.uniform_(norm.running_mean)
    return Embedding(norm, nn.Tanh(), nn.Conv2d(4, 4, 3))


def in_place() -> nn.Module:
    def shifted(x: Tensor) -> Tensor:
        x *= 2.0
        return x.add_(0.1)

    return Embedding(nn.SiLU(inplace=True), nn.BatchNorm2d(4), nn.SiLU(inplace=True), Call(shifted), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2))


class ChangesInput(Embedding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2.0).sub_(0.5))


class Perceptron(nn.Sequential):
    out_features = 5


def flattened() -> nn.Module:
    return Perceptron(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 5))


def fourier() -> nn.Module:
    return Embedding(Call(lambda x: torch.fft.rfft2(x).abs()), nn.Conv2d(4, 4, 3, padding=1))


def embedded_pixels() -> nn.Module:
    return Embedding(Call(lambda x, table: table((x.flatten(1).sigmoid() * 9).long()).mean(dim=1) * x.mean(), nn.Embedding(10, 4)))


class Branches(Embedding):
    def __init__(self) -> None:
        super().__init__(nn.Tanh())
        self.branches = nn.ModuleDict({"low": nn.Linear(4, 4), "high": nn.Linear(4, 4)})

    def forward(self, x: Tensor) -> Tensor:
        low = x.mean().item() < 0.5
        return self.branches["low" if low else "high"](super().forward(x))


def writes_into_zeros() -> nn.Module:
    def every_second(x: Tensor) -> Tensor:
        kept = torch.zeros(x.shape, dtype=x.dtype)
        kept[:, ::2] = x[:, ::2]
        return kept

    return Embedding(Call(every_second), nn.Conv2d(4, 4, 3))


def boolean_mask() -> nn.Module:
    def clipped(x: Tensor) -> Tensor:
        x = x.clone()
        x[x < 0] = 0.1
        return x

    return Embedding(Call(clipped), nn.Conv2d(4, 4, 3), nn.Tanh())


def cells() -> nn.Module:
    return Embedding(Call(lambda x, gru, lstm: gru(x.mean((2, 3))) + lstm(x.amax((2, 3)))[0], nn.GRUCell(4, 4), nn.LSTMCell(4, 4)))


class OfThreeDimensions(Embedding):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Tanh(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.line = nn.Sequential(nn.Conv1d(4, 2, 3), nn.BatchNorm1d(2), nn.MaxPool1d(2), nn.ConvTranspose1d(2, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.cat([self.inner(x[:, None]), self.line(x.flatten(2)).mean(dim=2)], dim=1)


def lazy() -> nn.Module:
    return Embedding(nn.LazyBatchNorm2d(), nn.LazyConv2d(3, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(5), out_features=5)


EQUAL: list[Module] = [
    norm_with_its_own_forward,
    PlainList,
    a_layer_under_two_names,
    tied_weights,
    frozen_stem,
    random_projection,
    weight_norm_old,
    weight_norm_new,
    own_parametrization,
    spectral_norm_in_eval,
    group_norm,
    layer_and_instance_norm,
    functional_layer_norm,
    recurrent,
    attention,
    transformer,
    own_attention,
    transformer_in_eval,
    hook_on_a_norm,
    norms_of_every_form,
    pretrained_norm_in_eval,
    in_place,
    ChangesInput,
    flattened,
    fourier,
    embedded_pixels,
    Branches,
    writes_into_zeros,
    boolean_mask,
    cells,
    OfThreeDimensions,
    lazy,
]
LOOPED: list[Module] = [Branches, writes_into_zeros, boolean_mask, cells]
"""Those of `EQUAL` that torch cannot map over tasks."""


class Counting(Embedding):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return super().forward(x) / self.count


class Replacing(Counting):
    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        return Embedding.forward(self, x)


class PythonCounter(Embedding):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) / self.calls


class OwnNorm(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, training=True)


class Unregistered(Embedding):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Conv2d(4, 4, 3)]

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden[0](self.stem(x)).mean(dim=(2, 3))


class PlainTensor(Embedding):
    def __init__(self) -> None:
        super().__init__()
        self.projections = {"first": torch.randn(4)}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.projections["first"]


class PythonNumber(Embedding):
    def __init__(self) -> None:
        super().__init__()
        self.scale = random.random()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class Noisy(Embedding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


class Unscripted(torch.autograd.Function):
    """A function of the older form, which torch.func does not take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2.0 * x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return 2.0 * g


class Wide(Embedding):
    def __init__(self) -> None:
        super().__init__(out_features=7)


def of_complex_numbers() -> nn.Module:
    made = Embedding(Call(lambda x: x))
    made.phase = nn.Parameter(torch.ones((), dtype=torch.complex64))
    made.parts[0].function = lambda x: (x * made.phase).real
    return made


def sparse_buffer() -> nn.Module:
    made = Embedding(nn.Flatten(), nn.Linear(64, 4))
    made.register_buffer("graph", torch.eye(4).to_sparse())
    return made


REFUSED: list[tuple[Module, str]] = [
    (of_complex_numbers, r"its tensor 'phase' has the type torch\.complex64, which a checkpoint does not hold"),
    (sparse_buffer, r"its tensor 'graph' is not a dense tensor"),
    (Counting, r"changes its tensor 'count' in its forward.*remove the line"),
    (Replacing, r"changes its tensor 'count' in its forward.*remove the line"),
    (PythonCounter, r"two different outputs for the same inputs.*remove the random numbers or the counters"),
    (
        lambda: Embedding(nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3))),
        r"call \.eval\(\) on its layer 'parts\.0'.*spectral norm",
    ),
    (lambda: Embedding(nn.utils.spectral_norm(nn.Conv2d(4, 4, 3))), r"call \.eval\(\) on its layer 'parts\.0'.*spectral norm"),
    (lambda: Embedding(OwnNorm(4)), r"changes its tensor 'parts\.0\.running_mean'.*track_running_stats=False"),
    (lambda: Embedding(nn.InstanceNorm2d(4, track_running_stats=True)), r"'parts\.0' track_running_stats=False"),
    (Unregistered, r"parameter of shape \(4,.*\) that it has not registered.*nn\.ModuleList"),
    (PlainTensor, r"outside its parameters and buffers.*register_buffer"),
    (PythonNumber, r"outside its parameters and buffers.*register_buffer"),
    (Noisy, r"its forward draws random numbers.*torch\.randn"),
    (lambda: Embedding(Call(lambda x: F.dropout(x, 0.001))), r"layer 'parts\.0' \(Call\) draws random numbers"),
    (lambda: Embedding(nn.Dropout(0.1)), r"layer 'parts\.0' \(Dropout\) draws random numbers.*set its dropout \(p\) to 0"),
    (lambda: Embedding(nn.RReLU()), r"layer 'parts\.0' \(RReLU\) draws random numbers"),
    (
        lambda: Embedding(Call(lambda x, attend: attend(*[rows_of(x)] * 3)[0].mean(1), nn.MultiheadAttention(4, 2, dropout=0.1))),
        r"'parts\.0\.inner\.0' \(MultiheadAttention\) draws random numbers.*dropout",
    ),
    (
        lambda: Embedding(Call(lambda x, layer: layer(rows_of(x)).mean(1), nn.TransformerEncoderLayer(4, 2, 8))),
        r"draws random numbers.*set its dropout \(p\) to 0",
    ),
    (lambda: Embedding(Call(lambda x: (x, x.mean()))), r"returns a tuple; it must return one tensor"),
    (lambda: Embedding(Call(lambda x: {"features": x})), r"returns a dict; it must return one tensor"),
    (lambda: Embedding(Call(lambda x: x.mean((0, 2, 3)))), r"outputs of shape \(4,\).*one vector per example"),
    (Wide, r"gives vectors of 4 numbers, but its out_features is 7"),
    (lambda: Embedding(nn.Conv2d(5, 4, 3)), r"cannot take this task's inputs of shape \(1, 8, 8\).*own_modules\.py, line"),
    (lambda: torch.jit.trace(Embedding(), torch.zeros(2, 1, 8, 8)), r"compiled by torch.*without torch\.compile"),
]
"""Modules with a pattern of the sentence that refuses them."""

NEEDS_FIRST_ORDER: list[tuple[Module, str]] = [
    (lambda: Embedding(Call(lambda x, bag: bag((x.flatten(1).sigmoid() * 9).long()), nn.EmbeddingBag(10, 4))), "_embedding_bag_backward"),
    (lambda: Embedding(Call(lambda x: torch.cdist(x.mean((2, 3)), x.new_ones(4, 4).tril()))), "_cdist_backward"),
]
"""Modules with operations that have no second derivative, and the name of each in torch's message."""


def old_function() -> nn.Module:
    """A module that only methods without an inner gradient can use."""
    return Embedding(Call(Unscripted.apply))


CURRENT: list[Module] = []
"""The module that `current` builds: a config names functions by their paths, and some modules above have none."""


def current() -> Any:
    """Return the module that a test has chosen; a refused one may be anything."""
    module: Any = CURRENT[0]()
    if "out_features" not in dir(module):
        module.out_features = 4
    return module


def untouched() -> Any:
    """Return the module that a test has chosen, with an `out_features` only where its own code sets one."""
    return CURRENT[0]()
