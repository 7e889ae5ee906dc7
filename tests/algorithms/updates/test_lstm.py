"""The LSTM meta-learner against torch's cell and the paper's formulas."""

from __future__ import annotations

import math

import pytest
import torch
from rules import KEY, slopes, walk, weights
from torch import nn

from metarun import testing
from metarun.algorithms.updates.lstm import Lstm, preprocessed
from metarun.errors import UserError


def test_the_papers_preprocessing_by_hand():
    """p = 10: above e^-10 the logarithm over 10 and the sign, below -1 and e^10 x."""
    x = torch.tensor([1.0, -math.exp(-5), math.exp(-11), 0.0], dtype=torch.float64)
    expected = torch.tensor([[0.0, 1.0], [-0.5, -1.0], [-1.0, math.exp(-1)], [-1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(preprocessed(x), expected, rtol=1e-12, atol=1e-12)


def test_the_lstms_steps_are_those_of_torchs_cell_and_the_papers_gates():
    start, path, rule = weights(), slopes(3), Lstm(units=5)
    learned = {name: value + 0.3 * torch.randn_like(value) for name, value in testing.double(rule.init(start, KEY)).items()}
    cell = nn.LSTMCell(4, 5).double()
    names = {"weight_ih": "weight_input", "weight_hh": "weight_hidden", "bias_ih": "bias"}
    cell.load_state_dict({theirs: learned[f"cell.{ours}"] for theirs, ours in names.items()} | {"bias_hh": torch.zeros(20).double()})
    theta = torch.cat([value.flatten() for value in start.values()])
    state, rate, keep = None, torch.zeros_like(theta), torch.zeros_like(theta)
    for slope in path:
        gradient = torch.cat([value.flatten() for value in slope.gradients.values()])
        inputs = torch.cat([preprocessed(gradient), preprocessed(slope.loss).expand(len(gradient), 2)], dim=1)
        state = cell(inputs, state)
        seen = [torch.cat([state[0], theta[:, None], gate[:, None]], dim=1) for gate in (rate, keep)]
        rate, keep = (torch.sigmoid(x @ learned[f"{n}_weight"] + learned[f"{n}_bias"]) for n, x in zip(("rate", "keep"), seen, strict=True))
        theta = keep * theta - rate * gradient
    found = torch.cat([value.flatten() for value in walk(rule, start, learned, path).values()])
    torch.testing.assert_close(found, theta, rtol=1e-12, atol=1e-12)


def test_the_lstm_starts_near_gradient_descent():
    """With gate weights of at most 0.01 a parameter keeps σ(5) ± 1 % of itself and the rate is σ(-4.5) within 30 %."""
    start, [slope], rule = weights(), slopes(1), Lstm()
    learned = testing.double(rule.init(start, KEY))
    _, memory = rule.step(learned, start, slope, rule.start(start), 0)
    assert (memory.keep - 0.9933).abs().max() < 0.01
    assert (memory.rate - 0.0110).abs().max() < 0.0033


def test_a_bad_option_is_a_sentence():
    with pytest.raises(UserError, match=r"algo\.update.units=0 must be at least 1"):
        Lstm(units=0)
