"""Meta-Curvature: a learned matrix for each axis of a gradient."""

from __future__ import annotations

import torch
from rules import KEY, slopes, walk, weights

from metarun import testing
from metarun.algorithms.updates.meta_curvature import FACTORS, FILTER, INPUTS, OUTPUTS, MetaCurvature
from metarun.algorithms.updates.sgd import Sgd


def test_meta_curvature_multiplies_the_gradient_along_each_of_its_axes():
    start, [slope] = weights(), slopes(1)
    rule = MetaCurvature(lr=0.5)
    learned = {name: torch.randn_like(value, dtype=torch.float64) for name, value in rule.init(start, KEY).items()}
    conv, linear = slope.gradients["conv"].reshape(4, 2, 9), slope.gradients["linear"]
    expected = {
        "conv": torch.einsum("ao,bi,cf,oif->abc", *(learned[kind + "conv"] for kind in (OUTPUTS, INPUTS, FILTER)), conv).reshape(
            4, 2, 3, 3
        ),
        "linear": torch.einsum("ao,bi,oi->ab", learned[OUTPUTS + "linear"], learned[INPUTS + "linear"], linear),
        "bias": learned[FACTORS + "bias"] * slope.gradients["bias"],
    }
    found = walk(rule, start, learned, [slope])
    testing.assert_same(found, {name: value - 0.5 * expected[name] for name, value in start.items()}, "the weights", tolerance=1e-12)


def test_meta_curvature_starts_as_gradient_descent():
    start, path = weights(), slopes(2)
    rule = MetaCurvature(lr=0.5)
    testing.assert_same(walk(rule, start, testing.double(rule.init(start, KEY)), path), walk(Sgd(0.5), start, {}, path), "the weights")
