"""The transformer neural process: its attention as one masked pass."""

from __future__ import annotations

import pytest
import torch
from small import Lines
from torch import Tensor
from torch.autograd import gradcheck

from metarun import draws, testing
from metarun.algorithms.parts.attention import finish, project
from metarun.algorithms.parts.densities import densities
from metarun.algorithms.parts.perceptrons import perceptron
from metarun.algorithms.tnp import Tnp
from metarun.errors import UserError
from metarun.objectives import REGRESSION
from metarun.predictive import nll
from metarun.types import Episode, Examples, Params, part_of

KEY = draws.key(0, "tnp")


def small() -> tuple[Tnp, Params]:
    algorithm = Tnp(REGRESSION, 4, 2, width=8, embed_layers=2, layers=3, heads=2, hidden=6, components=2)
    return algorithm, testing.start(algorithm)[0]


def episode() -> Episode:
    one: Episode = testing.double(Lines().episode("train", 0))
    return one


def one_pass(algorithm: Tnp, params: Params, part: Episode) -> Tensor:
    """Return the head's outputs for the queries, with all tokens in one sequence under an explicit mask."""
    support, query = part
    known, asked = torch.cat([support.x, support.y], dim=1), torch.cat([query.x, torch.zeros_like(query.y)], dim=1)
    tokens, shots = perceptron(part_of(params, "embed."), torch.cat([known, asked])), len(known)
    sees = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    sees[:, :shots] = True
    sees |= torch.eye(len(tokens), dtype=torch.bool)
    for number in range(algorithm.layers):
        layer = part_of(params, f"layer{number}.")
        q, k, v = project(layer, tokens, algorithm.heads)
        scores = torch.einsum("bhe,mhe->hbm", q, k) / 4**0.5
        shares = scores.masked_fill(~sees, -torch.inf).softmax(dim=-1)
        tokens = finish(layer, tokens, torch.einsum("hbm,mhe->bhe", shares, v).flatten(1))
    return perceptron(part_of(params, "head."), tokens[shots:])


def test_the_prediction_is_that_of_one_masked_pass_over_support_and_queries():
    algorithm, params = small()
    support, query = episode()
    expected = densities(one_pass(algorithm, params, Episode(support, query)), 2, 0.05)
    found = algorithm.distribution(algorithm.adapt(params, {}, support, KEY), query.x)
    testing.assert_same(found, expected, "the distribution", tolerance=1e-11)
    loss = algorithm.loss(params, {}, Episode(support, query), KEY, torch.tensor(0))[0]
    torch.testing.assert_close(loss, nll(expected, query.y), rtol=1e-10, atol=1e-10)


def test_another_support_target_changes_every_prediction():
    algorithm, params = small()
    support, query = episode()
    other = Examples(support.x, support.y + torch.tensor([1.0, 0.0], dtype=torch.float64))
    apart = algorithm.predict(algorithm.adapt(params, {}, support, KEY), query.x) - algorithm.predict(
        algorithm.adapt(params, {}, other, KEY), query.x
    )
    assert float(apart.abs().min()) > 1e-6


def test_the_gradient_of_the_loss_equals_finite_differences():
    algorithm, params = small()
    part = episode()
    name = "layer1.project.weight"

    def loss(weight: Tensor) -> Tensor:
        return algorithm.loss({**params, name: weight}, {}, part, KEY, torch.tensor(0))[0]

    assert gradcheck(loss, params[name].clone().requires_grad_())


def test_bad_options_are_told_in_a_sentence():
    for options, sentence in (
        ({"width": 10, "heads": 4}, r"algo\.width=10 must be a multiple of algo\.heads=4"),
        ({"layers": 0}, r"algo\.layers=0 must be at least 1"),
        ({"min_std": 1.5}, r"algo\.min_std=1\.5 must be above 0 and below 1"),
    ):
        with pytest.raises(UserError, match=sentence):
            Tnp(REGRESSION, 1, 1, **options)  # type: ignore[arg-type]
