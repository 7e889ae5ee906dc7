"""Plain gradient descent."""

from __future__ import annotations

import pytest
import torch
from rules import KEY, check_steps_of_torch, slopes, walk, weights

from metarun import testing
from metarun.algorithms.updates.sgd import Sgd


def test_the_steps_are_torchs():
    check_steps_of_torch(Sgd(0.1), lambda params: torch.optim.SGD(params, lr=0.1))


def test_a_learned_rate_replaces_the_fixed_one():
    start, path = weights(), slopes(2)
    assert Sgd(0.1).init(start, KEY) == {}
    learned = Sgd(0.1, learn_lr=True).init(start, KEY)
    assert learned["lr"].item() == pytest.approx(0.1)
    faster = {"lr": torch.tensor(0.5, dtype=torch.float64)}
    testing.assert_same(walk(Sgd(0.1, learn_lr=True), start, faster, path), walk(Sgd(0.5), start, {}, path), "the weights")
