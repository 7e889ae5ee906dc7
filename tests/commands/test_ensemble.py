"""An ensemble is the average of its members, each adapted by itself."""

from __future__ import annotations

import math

import pytest
import torch
from small import Double, Lines, algorithm_of, conv_network, dense_network, few_shot

from metarun import draws, testing
from metarun.algorithms.maml import Maml
from metarun.commands.ensemble import DistributionEnsemble, Ensemble, SampledDistributionEnsemble, ensemble_of, stacked
from metarun.engine.evaluation import evaluate
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.predictive import Predictive, averaged, mean, nll
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


# Members that return a distribution


def line_episode() -> Episode:
    return Double(Lines()).episode("val", 0)


def own(algorithm: Algorithm, params: Params, state: State, part: Episode) -> Predictive:
    distribution: Predictive = algorithm.distribution(algorithm.adapt(params, state, part.support, KEY), part.query.x)  # type: ignore[attr-defined]
    return distribution


def test_an_ensemble_has_the_optional_methods_that_its_members_allow():
    kinds = [ensemble_of(algorithm_of(name, "regression")) for name in ("maml", "pmaml", "cnp")]
    assert [type(kind) for kind in kinds] == [Ensemble, SampledDistributionEnsemble, DistributionEnsemble]
    assert [hasattr(kind, "sampled") for kind in kinds] == [True, True, False]
    assert [hasattr(kind, "distribution") for kind in kinds] == [False, True, True]


@pytest.mark.parametrize("name", ["cnp", "tnp", "pmaml"])
def test_an_ensemble_of_distributions_is_their_mixture(name: str):
    """The density of a query is the mean of the members' densities."""
    algorithm, part = algorithm_of(name, "regression"), line_episode()
    params, states = members(algorithm)
    ensemble = ensemble_of(algorithm)
    adapted = ensemble.adapt(stacked(params), stacked(states), part.support, KEY)
    found = ensemble.distribution(adapted, part.query.x)  # type: ignore[attr-defined]
    for row in range(len(part.query.y)):
        y, at = part.query.y[row : row + 1], part.query.x[row : row + 1]
        alone = [own(algorithm, p, s, part._replace(query=part.query._replace(x=at))) for p, s in zip(params, states, strict=True)]
        expected = -math.log(sum(math.exp(-float(nll(each, y))) for each in alone) / 3)
        one = Predictive(*(None if each is None else each[:, :, row : row + 1] for each in found[:3]))  # type: ignore[arg-type]
        assert float(nll(one, y)) == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(ensemble.predict(adapted, part.query.x), mean(found), rtol=1e-9, atol=1e-9)


def test_the_members_of_an_ensemble_of_distributions_are_its_hypotheses():
    """The joint likelihood keeps one member for all queries of a task."""
    algorithm = algorithm_of("cnp", "regression")
    params, states = members(algorithm)
    report = evaluate(ensemble_of(algorithm), stacked(params), stacked(states), Double(Lines()), split="test", episodes=3)
    assert report.variance is None
    assert report.nll == report.own_nll
    assert report.joint_nll != pytest.approx(report.nll, abs=1e-6)


class Weighted:
    """An algorithm whose two hypotheses have the weights 1/4 and 3/4; only its distribution matters."""

    objective = REGRESSION

    def adapt(self, params: Params, state: State, support: object, key: object, *, training: bool = False) -> torch.Tensor:
        return params["level"]

    def predict(self, adapted: torch.Tensor, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return mean(self.distribution(adapted, x))

    def distribution(self, adapted: torch.Tensor, x: torch.Tensor, mask: torch.Tensor | None = None) -> Predictive:
        means = torch.stack([adapted, adapted + 1.0]).double()[:, None, None, None].expand(2, 1, len(x), 1)
        return Predictive(means, torch.ones((), dtype=torch.float64), log_priors=torch.tensor([0.25, 0.75], dtype=torch.float64).log())


def test_the_weights_of_the_members_hypotheses_stay():
    ensemble, part = ensemble_of(Weighted()), line_episode()  # type: ignore[arg-type]
    adapted = ensemble.adapt({"level": torch.tensor([0.0, 10.0])}, {}, part.support, KEY)
    found = ensemble.distribution(adapted, part.query.x)  # type: ignore[attr-defined]
    torch.testing.assert_close(found.log_priors.exp(), torch.tensor([0.125, 0.375, 0.125, 0.375], dtype=torch.float64))
    torch.testing.assert_close(mean(found), torch.full((5, 1), 5.75, dtype=torch.float64))
