"""The conditional neural process: its prediction by hand."""

from __future__ import annotations

import pytest
import torch
from small import Lines

from metarun import draws, testing
from metarun.algorithms.cnp import Cnp
from metarun.algorithms.parts.densities import densities
from metarun.algorithms.parts.perceptrons import perceptron
from metarun.errors import UserError
from metarun.objectives import REGRESSION
from metarun.predictive import mean, nll
from metarun.types import Episode, Examples, Params, part_of

KEY = draws.key(0, "cnp")


def small(components: int = 2) -> tuple[Cnp, Params]:
    algorithm = Cnp(REGRESSION, 4, 2, encoder_widths=(6, 5), decoder_widths=(7,), components=components)
    return algorithm, testing.start(algorithm)[0]


def episode() -> Episode:
    one: Episode = testing.double(Lines().episode("train", 0))
    return one


def test_the_prediction_is_the_decoder_of_the_mean_code_and_the_query():
    algorithm, params = small()
    support, query = episode()
    codes = perceptron(part_of(params, "encoder."), torch.cat([support.x, support.y], dim=1))
    adapted = algorithm.adapt(params, {}, support, KEY)
    torch.testing.assert_close(adapted.code, codes.mean(dim=0), rtol=1e-12, atol=1e-12)
    outputs = perceptron(part_of(params, "decoder."), torch.cat([query.x, codes.mean(dim=0).expand(5, 5)], dim=1))
    expected = densities(outputs, 2, 0.1)
    found = algorithm.distribution(adapted, query.x)
    testing.assert_same(found, expected, "the distribution", tolerance=1e-12)
    torch.testing.assert_close(algorithm.predict(adapted, query.x), mean(expected), rtol=1e-12, atol=1e-12)
    loss, aux = algorithm.loss(params, {}, Episode(support, query), KEY, torch.tensor(0))
    torch.testing.assert_close(loss, nll(expected, query.y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(aux.metrics["mse"], (mean(expected) - query.y).square().mean(), rtol=1e-12, atol=1e-12)


def test_the_number_of_support_examples_may_differ_from_training():
    algorithm, params = small()
    support, query = episode()
    fewer = Examples(support.x[:1], support.y[:1])
    assert algorithm.predict(algorithm.adapt(params, {}, fewer, KEY), query.x).shape == query.y.shape


def test_bad_options_are_told_in_a_sentence():
    for options, sentence in (
        ({"encoder_widths": ()}, r"algo\.encoder_widths=\[\] must be a list of one or more layers"),
        ({"decoder_widths": (4, 0)}, r"algo\.decoder_widths=\[4, 0\] must be"),
        ({"components": 0}, r"algo\.components=0 must be at least 1"),
        ({"min_std": 0.0}, r"algo\.min_std=0\.0 must be above 0 and below 1"),
    ):
        with pytest.raises(UserError, match=sentence):
            Cnp(REGRESSION, 1, 1, **options)  # type: ignore[arg-type]
