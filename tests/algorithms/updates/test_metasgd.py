"""Meta-SGD: one learned rate for each number."""

from __future__ import annotations

import torch
from rules import KEY, slopes, walk, weights

from metarun import testing
from metarun.algorithms.updates.metasgd import LR, MetaSgd


def test_metasgd_multiplies_the_gradient_by_a_rate_for_each_number_of_any_sign():
    start, [slope] = weights(), slopes(1)
    learned = {LR + name: torch.randn_like(value) for name, value in start.items()}
    expected = {name: value - learned[LR + name] * slope.gradients[name] for name, value in start.items()}
    testing.assert_same(walk(MetaSgd(), start, learned, [slope]), expected, "the weights", tolerance=0.0)


def test_metasgd_starts_from_uniform_rates_of_its_own_for_each_number():
    learned = MetaSgd(0.005, 0.1).init(weights(), KEY)
    for value in learned.values():
        assert 0.005 <= float(value.min()) < float(value.max()) < 0.1
        assert len(value.unique()) == value.numel()
    assert not torch.equal(learned["lr.conv"].flatten()[:4], learned["lr.bias"])
    testing.assert_same(learned, MetaSgd(0.005, 0.1).init(weights(), KEY), "another start for the same key", tolerance=0.0)
