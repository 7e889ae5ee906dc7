"""Recurrent layers against torch's, in every form of their arguments, and mapped over tasks with second derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils.rnn import pack_sequence

from metarun.layers.adopt import KINDS, adopt_layers

LAYERS = {
    "tanh": lambda **options: nn.RNN(3, 4, **options),
    "relu": lambda **options: nn.RNN(3, 4, nonlinearity="relu", **options),
    "gru": lambda **options: nn.GRU(3, 4, **options),
    "lstm": lambda **options: nn.LSTM(3, 4, **options),
    "projected": lambda **options: nn.LSTM(3, 4, proj_size=2, **options),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def first_state(layer: Any, rows: int | None) -> Any:
    """Return a first state for a batch of rows; for one sequence without an axis of rows where `rows` is None."""
    count, batch = layer.num_layers * (1 + layer.bidirectional), [] if rows is None else [rows]
    hidden = random(count, *batch, layer.proj_size or 4)
    return (hidden, random(count, *batch, 4)) if isinstance(layer, nn.LSTM) else hidden


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_states_and_gradients_are_torchs(name: str) -> None:
    for options in OPTIONS:
        layer = LAYERS[name](**options).double()
        cases = [(x, state) for x, rows in ((random(5, 2, 3), 5 if layer.batch_first else 2), (random(5, 3), None))
                 for state in (None, first_state(layer, rows))]  # fmt: skip
        expected = [results(layer, x, state) for x, state in cases]
        adopt_layers(layer)
        assert type(layer) is KINDS[type(layer).__mro__[2]]
        for (x, state), theirs in zip(cases, expected, strict=True):
            torch.testing.assert_close(results(layer, x, state), theirs, rtol=1e-10, atol=1e-10)


def results(layer: Any, x: Tensor, state: Any) -> Any:
    out, last = layer(x, state)
    leaves = list(layer.parameters())
    return out, last, torch.autograd.grad(out.pow(3).sum() + sum(part.sum() for part in last), leaves)


def test_the_first_state_of_an_lstm_may_be_a_list() -> None:
    layer = nn.LSTM(3, 4).double()
    x, state = random(5, 2, 3), first_state(layer, 2)
    expected = layer(x, list(state))
    adopt_layers(layer)
    torch.testing.assert_close(layer(x, list(state)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_mapped_over_tasks_and_differentiated_twice(name: str) -> None:
    layer, x = LAYERS[name]().double(), random(3, 5, 2, 3)
    adopt_layers(layer)
    params = {key: value.detach() for key, value in layer.named_parameters()}

    def after_a_step(params: dict[str, Tensor], x: Tensor) -> Tensor:
        def inner(params: dict[str, Tensor]) -> Tensor:
            return functional_call(layer, params, (x,))[0].pow(3).sum()

        return inner({key: params[key] - 0.1 * slope for key, slope in grad(inner)(params).items()})

    found = vmap(grad(after_a_step), (None, 0))(params, x)
    for task in range(3):
        for key, value in grad(after_a_step)(params, x[task]).items():
            torch.testing.assert_close(found[key][task], value)


def test_packed_sequences_and_dropout_between_layers_are_torchs() -> None:
    layer = nn.GRU(3, 4, num_layers=2, dropout=0.5)
    packed = pack_sequence([torch.randn(3, 3), torch.randn(2, 3)])
    adopt_layers(layer)
    torch.manual_seed(0)
    out = layer(packed)[0].data
    assert out.shape == (5, 4)
    torch.manual_seed(1)
    assert not torch.equal(layer(packed)[0].data, out)
