"""Prototypes and ridge heads, by hand."""

from __future__ import annotations

import math

import torch

from metarun.algorithms.parts.task_weights import KINDS, ridge
from metarun.types import Examples

Z = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 10.0]], dtype=torch.float64)


def test_prototypes_are_means_and_their_outputs_are_squared_distances():
    kind, y = KINDS["classification"], torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    examples = Examples(Z, y, torch.tensor([True, True, False]))
    weights = kind.fit({}, Z, examples, kind.prior({}, Z, examples))
    assert weights[0].tolist() == [2.0, 3.0]
    evidence = kind.evidence(examples)
    assert evidence is not None
    assert evidence.tolist() == [[math.log(2.0)], [0.0]], "two real examples, and none, which counts as one"
    outputs = kind.outputs(torch.tensor([[2.0, 5.0]], dtype=torch.float64), weights, kind.classes(examples))
    assert outputs.tolist() == [[-4.0, -1e9]]
    assert (kind.size(2), kind.init(2)) == (2, {})


def test_ridge_heads_start_from_the_learned_prior_and_have_a_bias():
    kind = KINDS["regression"]
    params = {"prior": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), "log_strength": torch.tensor(0.0, dtype=torch.float64)}
    examples = Examples(Z, torch.ones(3, 1, dtype=torch.float64))
    prior = kind.prior(params, Z, examples)
    assert kind.outputs(Z[:1], prior, None).tolist() == [[1.0 * 1.0 + 2.0 * 2.0 + 3.0]]
    with_bias = torch.cat([Z, torch.ones(3, 1, dtype=torch.float64)], dim=1)
    expected = ridge(with_bias, examples.y, None, prior, torch.ones((), dtype=torch.float64))
    assert torch.equal(kind.fit(params, Z, examples, prior), expected)
    assert {name: tuple(value.shape) for name, value in kind.init(2).items()} == {"prior": (3,), "log_strength": ()}
    assert (kind.size(2), kind.evidence(examples), kind.classes(examples)) == (3, None, None)
