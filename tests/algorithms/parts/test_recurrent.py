"""The LSTM of linear operations against torch's own, against numbers worked by hand, and under a map over tasks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from metarun import draws, testing
from metarun.algorithms.parts.recurrent import LstmState, lstm_cell, lstm_init, lstm_start
from metarun.types import Params


def double_cell(inputs: int = 3, units: int = 2) -> Params:
    cell: Params = testing.double(lstm_init(draws.key(4), inputs, units))
    return cell


def normal(name: str, *shape: int) -> Tensor:
    return draws.normal(draws.key(8, name), *shape, dtype=torch.float64)


def test_a_cell_is_torchs_own():
    params = double_cell()
    theirs = nn.LSTMCell(3, 2).double()
    named = {"weight_ih": "weight_input", "weight_hh": "weight_hidden", "bias_ih": "bias"}
    theirs.load_state_dict({name: params[ours] for name, ours in named.items()} | {"bias_hh": torch.zeros(8, dtype=torch.float64)})
    x, state = normal("x", 5, 3), (normal("h", 5, 2), normal("c", 5, 2))
    testing.assert_same(tuple(lstm_cell(params, x, state)), theirs(x, state), "the state after one input")


def test_a_cell_with_one_unit_follows_its_equations():
    """With W = (0, 1, 2, 3)ᵀ for the gates i, f, g, o, U = 0, b = 0, x = 1 and c = 0.5 the four sums are 0, 1, 2 and 3."""
    params = {
        "weight_input": torch.arange(4.0)[:, None],
        "weight_hidden": torch.zeros(4, 1),
        "bias": torch.zeros(4),
    }
    hidden, cell = lstm_cell(params, torch.ones(1), (torch.zeros(1), torch.full((1,), 0.5)))

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    kept = sigmoid(1) * 0.5 + 0.5 * math.tanh(2)
    assert float(cell) == pytest.approx(kept)
    assert float(hidden) == pytest.approx(sigmoid(3) * math.tanh(kept))


def test_a_new_cell_remembers():
    """A forget gate's bias of 1 keeps sigmoid(1) = 73 % of the cell where nothing else speaks."""
    params = lstm_init(draws.key(0), 3, 2)
    assert params["bias"].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert all(params[name].abs().max() <= 1 / math.sqrt(2) for name in ("weight_input", "weight_hidden"))


def test_orthogonal_recurrent_weights_keep_the_length_of_every_state():
    params = lstm_init(draws.key(3, "cell"), 2, 6, orthogonal=True)
    gates = params["weight_hidden"].reshape(4, 6, 6)
    torch.testing.assert_close(gates.mT @ gates, torch.eye(6).expand(4, 6, 6))
    assert all(not torch.equal(gates[0], other) for other in gates[1:])
    plain = lstm_init(draws.key(3, "cell"), 2, 6)
    assert all(torch.equal(params[name], plain[name]) for name in ("weight_input", "bias"))


def test_the_start_has_the_leading_axes_of_the_inputs():
    params = double_cell()
    assert [tuple(each.shape) for each in lstm_start(params, normal("x", 5, 3))] == [(5, 2), (5, 2)]
    assert [tuple(each.shape) for each in lstm_start(params, normal("x", 3))] == [(2,), (2,)]
    assert lstm_start(params, normal("x", 3)).cell.dtype == torch.float64


def test_gradients_agree_with_finite_differences():
    params = {name: value.requires_grad_() for name, value in double_cell().items()}
    x, h, c = (normal(name, 2, size).requires_grad_() for name, size in (("x", 3), ("h", 2), ("c", 2)))

    def run(weight_input: Tensor, weight_hidden: Tensor, bias: Tensor, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        cell = {"weight_input": weight_input, "weight_hidden": weight_hidden, "bias": bias}
        return lstm_cell(cell, x, lstm_cell(cell, x, LstmState(h, c)))

    assert torch.autograd.gradcheck(run, (*params.values(), x, h, c))


def test_a_map_over_tasks_is_a_loop_over_them_for_the_gradient_too():
    params, x = double_cell(), normal("x", 4, 3)

    def loss(params: Params, x: Tensor) -> Tensor:
        return lstm_cell(params, x, lstm_start(params, x)).hidden.square().sum()

    mapped = vmap(grad(loss), (None, 0))(params, x)
    looped = [grad(loss)(params, row) for row in x]
    testing.assert_same(mapped, {name: torch.stack([each[name] for each in looped]) for name in params}, "the gradients")
