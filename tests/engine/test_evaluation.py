"""Reports against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small import Double, Lines, algorithm_of, conv_network, dense_network, few_shot
from torch import Tensor

from metarun import testing
from metarun.algorithms.maml import Maml
from metarun.algorithms.protonet import ProtoNet
from metarun.compute.plan import Plan
from metarun.compute.running import Runner
from metarun.engine.evaluation import TaskScores, evaluate, observation_variance, score_episode
from metarun.engine.outputs import BY_STEP
from metarun.objectives import CLASSIFICATION, REGRESSION, Objective
from metarun.types import Episode, Examples, Params, State

KEY = torch.tensor(0)


@dataclass(frozen=True)
class Steps:
    """After inner step s the output is s times the support mean; in classification the logits are `logits`."""

    objective: Objective
    steps: int = 2
    logits: Tensor | None = None

    def init(self, key: Tensor) -> tuple[Params, State]:
        return {}, {}

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Any:
        return self.trajectory(params, state, support, key)[-1]

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor) -> list[Tensor]:
        return [number * support.y.mean(dim=0) for number in range(self.steps + 1)]

    def predict(self, adapted: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.logits if self.logits is not None else adapted.expand(len(x), -1)


def test_by_step_scores_before_adaptation_and_after_each_inner_step():
    support = Examples(torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]))
    query = Examples(torch.zeros(2, 1), torch.tensor([[2.0], [4.0]]))
    scored = score_episode(Steps(REGRESSION), {}, {}, Episode(support, query), KEY)
    # The outputs are 0, 2 and 4; the squared errors (4 + 16)/2, (0 + 4)/2 and (4 + 0)/2; the support mean is 2.
    assert scored["by_step"].tolist() == [10.0, 2.0, 2.0]
    assert scored["steps"].tolist() == [0, 1, 2]
    assert float(scored["baseline"]) == 2.0


def test_the_support_mean_and_the_score_leave_padding_out():
    support = Examples(torch.zeros(3, 1), torch.tensor([[1.0], [3.0], [99.0]]), torch.tensor([True, True, False]))
    query = Examples(torch.zeros(2, 1), torch.tensor([[4.0], [77.0]]), torch.tensor([True, False]))
    assert float(score_episode(Steps(REGRESSION), {}, {}, Episode(support, query), KEY)["baseline"]) == 4.0


def test_confidence_and_likelihood_of_a_classification_by_hand():
    """Logits log 3 and 0 are probabilities 3/4 and 1/4; the two queries are of the first and of the second class."""
    y = torch.eye(2)
    episode = Episode(Examples(torch.zeros(2, 1), y), Examples(torch.zeros(2, 1), y))
    algorithm = Steps(CLASSIFICATION, logits=torch.tensor([[math.log(3.0), 0.0]] * 2))
    scored = score_episode(algorithm, {}, {}, episode, KEY)
    assert float(scored["nll"]) == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    assert scored["confidence"].tolist() == pytest.approx([0.75, 0.75])
    assert scored["right"].tolist() == [1.0, 0.0]
    assert float(scored["by_step"][-1]) == 0.5


def test_fewer_scores_are_a_selection_of_all_scores():
    algorithm = Steps(REGRESSION, steps=7)
    whole, thin, last = (evaluate(algorithm, {}, {}, Lines(), split="val", episodes=3, by_step=by_step) for by_step in BY_STEP)
    assert thin.steps == [0, 1, 2, 5, 7]
    assert thin.by_step == [whole.by_step[step] for step in thin.steps]
    assert (last.steps, last.by_step) == ([7], [whole.mean])
    assert thin.mean == last.mean == whole.mean


def test_the_chunk_changes_no_score():
    algorithm = Maml(conv_network(), CLASSIFICATION, inner_steps=2)
    params, state = testing.start(algorithm)
    reports = [
        evaluate(algorithm, params, state, Double(few_shot()), split="test", episodes=5, runner=Runner(Plan(chunk)))
        for chunk in (1, 2, 5, 8)
    ]
    for report in reports[1:]:
        assert report.scores == pytest.approx(reports[0].scores, abs=1e-12)
        for name, value in report.summary().items():
            assert value == (pytest.approx(reports[0].summary()[name], abs=1e-9) if name != "metric" else "accuracy"), name


@pytest.mark.parametrize("norm", ["batch", "running"])
def test_evaluation_changes_neither_parameters_nor_state(norm: str):
    algorithm = Maml(conv_network(norm), CLASSIFICATION, inner_steps=2, adapt_norm=True)
    params, state = testing.start(algorithm)
    before = ({name: value.clone() for name, value in held.items()} for held in (params, state))
    first = evaluate(algorithm, params, state, Double(few_shot()), split="test", episodes=3)
    testing.assert_same((params, state), tuple(before), "evaluation", tolerance=0.0)
    assert evaluate(algorithm, params, state, Double(few_shot()), split="test", episodes=3) == first


def test_evaluation_builds_no_outer_graph():
    algorithm = Maml(dense_network(), REGRESSION)
    params, state = testing.start(algorithm)
    params = {name: value.requires_grad_() for name, value in params.items()}
    evaluate(algorithm, params, state, Double(Lines()), split="val", episodes=2)
    assert all(value.grad is None for value in params.values())


@dataclass
class Noting:
    """A source that notes which episodes are dealt."""

    objective: str = "classification"

    def __post_init__(self) -> None:
        self.dealt: list[tuple[str, int]] = []

    def episode(self, split: str, index: int) -> Episode:
        self.dealt.append((split, index))
        return testing.double(few_shot().episode(split, index))


def test_every_algorithm_is_scored_on_the_same_first_episodes_of_the_split():
    algorithms = Maml(conv_network(), CLASSIFICATION), ProtoNet(conv_network(outputs=None), CLASSIFICATION)
    for algorithm, chunk in zip(algorithms, (2, 3), strict=True):
        source, done = Noting(), []
        evaluate(algorithm, *testing.start(algorithm), source, split="test", episodes=5, runner=Runner(Plan(chunk)), progress=done.append)
        assert source.dealt == [("test", index) for index in range(5)]
        assert done == ([2, 4, 5] if chunk == 2 else [3, 5])


def test_an_episode_whose_scores_are_nan_counts_as_diverged():
    algorithm = Maml(dense_network(), REGRESSION, inner_lr=1e200, inner_steps=3)
    report = evaluate(algorithm, *testing.start(algorithm), Double(Lines()), split="val", episodes=3)
    assert (report.diverged, report.not_finite) == (3, 3)
    assert report.mean == math.inf
    assert math.isfinite(report.by_step[0])


def test_a_query_whose_logits_are_not_finite_is_a_wrong_answer_of_confidence_one():
    """Rows: right; NaN at another class; +∞ at the right class; right but padding with NaN. One of three real queries is right."""
    y = torch.eye(2)[[0, 0, 0, 0]]
    logits = torch.tensor([[2.0, 0.0], [2.0, math.nan], [math.inf, 0.0], [math.nan, 0.0]])
    query = Examples(torch.zeros(4, 1), y, torch.tensor([True, True, True, False]))
    scored = score_episode(Steps(CLASSIFICATION, logits=logits), {}, {}, Episode(query, query), KEY)
    assert scored["by_step"].tolist() == pytest.approx([1 / 3] * 3)
    assert scored["right"].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert scored["confidence"].tolist()[1:3] == [1.0, 1.0]
    assert float(scored["finite"]) == 0.0
    padded = query._replace(mask=torch.tensor([True, False, False, False]))
    assert float(score_episode(Steps(CLASSIFICATION, logits=logits), {}, {}, Episode(padded, padded), KEY)["finite"]) == 1.0


# Likelihood, coverage and spread of a regression.


@dataclass(frozen=True)
class Guesses:
    """Predict these numbers for every query; the mixture of them is the prediction."""

    guesses: tuple[float, ...]
    objective: Objective = REGRESSION

    def init(self, key: Tensor) -> tuple[Params, State]:
        return {}, {}

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Tensor:
        return torch.tensor(self.guesses, dtype=torch.float64)

    def predict(self, adapted: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return adapted.mean().expand(len(x), 1)

    def sampled(self, adapted: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return adapted[:, None, None].expand(-1, len(x), 1)


@dataclass(frozen=True)
class Numbers:
    """A source whose episode n has the queries n - 1 and n + 1, in float64."""

    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        part = Examples(torch.zeros(2, 1, dtype=torch.float64), torch.tensor([[index - 1.0], [index + 1.0]], dtype=torch.float64))
        return Episode(part, part)


def test_the_observation_variance_of_a_plain_method_is_its_mean_squared_error_on_validation():
    """After two inner steps the prediction is twice the support mean, so the errors of episodes 0, 1, 2 are ±1, 1 ± 1, 2 ± 1."""
    variance = observation_variance(Steps(REGRESSION), {}, {}, Numbers(), episodes=3)
    assert variance == pytest.approx((1 + 1 + 0 + 4 + 1 + 9) / 6)
    assert observation_variance(Steps(CLASSIFICATION), {}, {}, Numbers(), episodes=3) is None


def test_a_regressions_likelihood_coverage_and_spread_by_hand():
    """Guess 0 at variance 4; episodes 0, 1 and 2 have the targets ±1, 0 and 2, 1 and 3, of which all lie within 1.645 · 2 = 3.29;
    at variance 1 the 2 and the 3 do not.
    """
    errors = [(1.0, 1.0), (0.0, 4.0), (1.0, 9.0)]
    report = evaluate(Guesses((0.0,)), {}, {}, Numbers(), split="test", episodes=3, variance=4.0)
    nlls = [0.5 * math.log(8.0 * math.pi) + (first + second) / 16.0 for first, second in errors]
    assert report.nlls == pytest.approx(nlls)
    assert report.nll == pytest.approx(sum(nlls) / 3)
    deviation = torch.tensor(nlls, dtype=torch.float64).std().item()
    assert report.nll_ci95 == pytest.approx(4.3026527 * deviation / math.sqrt(3.0))
    assert (report.coverage90, report.coverage90_ci95, report.spread, report.variance) == (1.0, 0.0, 2.0, 4.0)
    assert evaluate(Guesses((0.0,)), {}, {}, Numbers(), split="test", episodes=3, variance=1.0).coverage90 == pytest.approx(
        (1 + 0.5 + 0.5) / 3
    )


def test_the_mixture_of_what_an_algorithm_samples_is_what_is_scored():
    """Guesses -1 and 1 at variance 1, target 1: p = (φ(2) + φ(0)) / 2, the same at -1; the score is that of their mean, 0."""
    report = evaluate(Guesses((-1.0, 1.0)), {}, {}, Numbers(), split="test", episodes=1, variance=1.0)
    assert report.nll == pytest.approx(-math.log((1.0 + math.exp(-2.0)) / 2.0 / math.sqrt(2.0 * math.pi)))
    assert report.spread == pytest.approx(math.sqrt(2.0))
    assert report.mean == 1.0


def test_the_variance_of_a_mixture_is_fitted_to_the_mixture():
    """Guesses -1 and 1 hit both targets of episode 0, so little variance is left; their mean misses each by 1."""
    assert observation_variance(Guesses((-1.0, 1.0)), {}, {}, Numbers(), episodes=1) == pytest.approx(0.0, abs=1e-6)
    assert observation_variance(Guesses((0.0,)), {}, {}, Numbers(), episodes=1) == 1.0


def test_diverged_queries_leave_the_fitted_variance_alone():
    assert observation_variance(Guesses((math.nan,)), {}, {}, Numbers(), episodes=2) is None


def test_without_a_variance_a_regression_has_no_likelihood():
    report = evaluate(Guesses((0.0,)), {}, {}, Numbers(), split="test", episodes=2)
    assert (report.nll, report.coverage90, report.spread, report.nll_ci95, report.variance) == (None, None, None, None, None)
    assert report.nlls == []


def test_the_spread_of_a_classification_is_the_entropy_of_its_predictions():
    """Probabilities 1/2, 1/2 and 1, 0: log 2 and 0 nats; a padding row counts for nothing."""
    y = torch.eye(2).repeat(2, 1)[:3]
    episode = Episode(Examples(torch.zeros(3, 1), y), Examples(torch.zeros(3, 1), y, torch.tensor([True, True, False])))
    algorithm = Steps(CLASSIFICATION, logits=torch.tensor([[0.0, 0.0], [0.0, -1e9], [0.0, 0.0]]))
    assert float(score_episode(algorithm, {}, {}, episode, KEY)["spread"]) == pytest.approx(math.log(2.0) / 2)


def test_the_chunk_changes_no_figure_of_a_regression():
    algorithm = Maml(dense_network(), REGRESSION, inner_steps=2)
    params, state = testing.start(algorithm)
    reports = []
    for chunk in (1, 2, 5):
        same = {"episodes": 5, "runner": Runner(Plan(chunk))}
        variance = observation_variance(algorithm, params, state, Double(Lines()), **same)
        reports.append(evaluate(algorithm, params, state, Double(Lines()), split="test", variance=variance, **same))
    for report in reports[1:]:
        for name in ("mean", "nll", "coverage90", "spread", "variance", "nlls"):
            assert getattr(report, name) == pytest.approx(getattr(reports[0], name), abs=1e-9), name


# Sequences


@dataclass(frozen=True)
class Reader(Steps):
    """Never right at the first presentation of its two classes, in half of the cases at the second; only the first episode has a third."""

    def by_presentation(self, params: Params, state: State, episode: Episode, key: Tensor) -> tuple[Tensor, Tensor]:
        third = (episode.query.x.sum() > 0).to(episode.query.y.dtype)
        return torch.stack([0 * third, 1 + 0 * third, third]), torch.stack([2 + 0 * third, 2 + 0 * third, third])


@dataclass(frozen=True)
class Signs:
    """Episodes of two classes whose inputs are 1 in the first episode and -1 in the others."""

    objective: str = "classification"

    def episode(self, split: str, index: int) -> Episode:
        examples = Examples(torch.full((2, 1), -1.0 if index else 1.0), torch.eye(2))
        return Episode(examples, examples)


def test_an_algorithm_with_by_presentation_is_scored_by_it_episode_by_episode():
    report = evaluate(Reader(CLASSIFICATION), {}, {}, Signs(), split="test", episodes=3)
    assert report.summary()["by_presentation"] == [0.0, 0.5, 1.0]
    first, second, third = report.summary()["by_presentation_ci95"]
    assert (first, second, math.isnan(third)) == (0.0, 0.0, True), "one episode alone has a third presentation"
    assert evaluate(Steps(CLASSIFICATION), {}, {}, Signs(), split="test", episodes=3).by_presentation is None


def test_an_algorithm_that_reads_sequences_is_scored_by_presentation():
    algorithm = algorithm_of("mann")
    params, state = testing.start(algorithm)
    report = evaluate(algorithm, params, state, Double(few_shot(shots=1, queries=2)), split="test", episodes=3)
    assert report.by_presentation is not None
    assert len(report.by_presentation) == 3
    other = algorithm_of("protonet")
    assert evaluate(other, *testing.start(other), Double(few_shot()), split="test", episodes=1).by_presentation is None


def test_evaluations_with_one_runner_record_the_scores_of_an_algorithm_once():
    algorithm = algorithm_of("protonet")
    params, state = testing.start(algorithm)
    with Runner(Plan(2)) as runner:
        for by_step in ("last", "last", "all"):
            evaluate(algorithm, params, state, Double(few_shot()), split="val", episodes=4, runner=runner, by_step=by_step, runs=10)
        assert runner.recorded(TaskScores(algorithm, "last")) is not None
        assert runner.recorded(TaskScores(algorithm_of("protonet"), "last")) is None
        assert len(runner._recorded) == 2
