"""Gradient descent with momentum."""

from __future__ import annotations

import pytest
import torch
from rules import KEY, check_steps_of_torch, slopes, walk, weights

from metarun import testing
from metarun.algorithms.updates.momentum import Momentum
from metarun.errors import UserError


def test_the_steps_are_torchs():
    check_steps_of_torch(Momentum(0.1, 0.9), lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9))


def test_learned_rate_and_momentum_replace_the_fixed_ones():
    start, path = weights(), slopes(3)
    learned = {"lr": torch.tensor(0.2, dtype=torch.float64), "momentum": torch.tensor(0.5, dtype=torch.float64)}
    assert set(Momentum(learn_lr=True).init(start, KEY)) == set(learned)
    found = walk(Momentum(0.1, 0.9, learn_lr=True), start, learned, path)
    testing.assert_same(found, walk(Momentum(0.2, 0.5), start, {}, path), "the weights")


def test_a_bad_option_is_a_sentence():
    with pytest.raises(UserError, match=r"algo\.update.momentum=1\.0 must be at least 0 and below 1"):
        Momentum(momentum=1.0)
