"""An ensemble is the average of its members, each adapted by itself."""

from __future__ import annotations

import torch
from small import Double, Lines, algorithm_of, conv_network, dense_network, few_shot

from metarun import draws, testing
from metarun.algorithms.maml import Maml
from metarun.commands.ensemble import Ensemble, stacked
from metarun.engine.evaluation import evaluate
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.predictive import averaged
from metarun.types import Algorithm, Episode, Params, State

KEY = draws.key(0, "ensemble")


def image_episode() -> Episode:
    return Double(few_shot()).episode("val", 0)


def members(algorithm: Algorithm, count: int = 3) -> tuple[list[Params], list[State]]:
    """Return the parameters and states of networks that differ."""
    params, state = testing.start(algorithm)
    scaled = [{name: value * (1.0 + 0.3 * number) for name, value in params.items()} for number in range(count)]
    return scaled, [state] * count


def test_the_prediction_is_the_mean_probability_of_members_that_adapted_alone():
    algorithm, (support, query) = Maml(conv_network(), CLASSIFICATION, inner_lr=0.1), image_episode()
    params, states = members(algorithm)
    ensemble = Ensemble(algorithm)
    adapted = ensemble.adapt(stacked(params), stacked(states), support, KEY)
    alone = [algorithm.predict(algorithm.adapt(p, s, support, KEY), query.x) for p, s in zip(params, states, strict=True)]
    expected = torch.stack([logits.softmax(dim=1) for logits in alone]).mean(dim=0)
    torch.testing.assert_close(ensemble.predict(adapted, query.x).softmax(dim=1), expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(ensemble.sampled(adapted, query.x), torch.stack(alone), rtol=1e-7, atol=1e-9)


def test_members_that_sample_give_all_their_samples():
    algorithm, (support, query) = algorithm_of("pmaml"), image_episode()
    params, states = members(algorithm, 2)
    ensemble = Ensemble(algorithm)
    outputs = ensemble.sampled(ensemble.adapt(stacked(params), stacked(states), support, KEY), query.x)
    assert len(outputs) == 2 * algorithm.samples
    one = algorithm.sampled(algorithm.adapt(params[1], states[1], support, KEY), query.x)
    torch.testing.assert_close(outputs[algorithm.samples :], one, rtol=1e-7, atol=1e-9)
    assert averaged(outputs, "classification").shape == query.y.shape


def test_an_ensemble_of_regressions_is_scored_by_its_mixture():
    algorithm = Maml(dense_network(), REGRESSION, inner_lr=0.01)
    params, states = members(algorithm)
    source = Double(Lines())
    report = evaluate(Ensemble(algorithm), stacked(params), stacked(states), source, split="test", episodes=8, variance=0.5)
    single = evaluate(algorithm, params[0], states[0], source, split="test", episodes=8, variance=0.5)
    assert report.spread is not None
    assert single.spread is not None
    assert report.spread > single.spread
    assert report.steps == [0, 1]


def test_few_shot_episodes_go_through_the_engine_of_evaluation():
    algorithm = Maml(conv_network(), CLASSIFICATION, inner_lr=0.1)
    params, states = members(algorithm)
    report = evaluate(Ensemble(algorithm), stacked(params), stacked(states), Double(few_shot()), split="test", episodes=4)
    assert report.episodes == 4
    assert 0.0 <= report.mean <= 1.0
