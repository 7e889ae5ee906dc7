"""The evaluation over trajectories, with learners whose answers are known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from metarun.algorithms.maml import Maml
from metarun.algorithms.nearest import Nearest
from metarun.backbones.classifier import Classifier
from metarun.backbones.mlp import Mlp
from metarun.compute.plan import Plan
from metarun.compute.running import Runner
from metarun.engine.averages import t_quantile
from metarun.engine.evaluation import evaluate, observation_variance
from metarun.engine.selection import Selection
from metarun.engine.streams import by_part, first_parts
from metarun.engine.validation import Validation, values_to_log
from metarun.errors import UserError
from metarun.network import Network
from metarun.objectives import CLASSIFICATION, REGRESSION, Objective
from metarun.tasks.pool import ClassPool
from metarun.tasks.sampling import FewShot
from metarun.tasks.sine_stream import SineStreams
from metarun.tasks.stream import Streams
from metarun.types import Examples


def stream(classes: int = 4, **options: Any) -> Streams:
    """Return trajectories whose images have the number of their class as their value."""
    pools = {}
    for number, split in enumerate(("train", "val", "test")):
        values = torch.arange(10 * number, 10 * number + 6, dtype=torch.uint8).repeat_interleave(5)
        pools[split] = ClassPool(values[:, None, None, None], [5] * 6, [f"{split}{n}" for n in range(6)])
    keys = {"per_class": 3, "held_out": 2, "train_classes": 2, "lengths": [2, 3], "trajectories": 3}
    return Streams(FewShot(pools, ways=2, queries=1), classes, **{**keys, **options})


@dataclass
class Forgetful:
    """Remembers the last `keeps` classes: it answers with the class of an equal value among them, and with the latest class otherwise.

    The calls are noted: the rows of each call of `features`, the steps of `learn`, and whether a gradient was kept.
    """

    keeps: int
    objective: Objective = CLASSIFICATION
    rows: list[int] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    tracked: bool = False

    def adapt(self, params: Any, state: Any, support: Examples, key: Tensor, *, training: bool = False) -> Any:
        raise AssertionError("a learner of streams is not adapted to all examples")

    def predict(self, adapted: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        raise AssertionError("a learner of streams answers by `answer`")

    def features(self, params: Any, state: Any, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return x.flatten(1)

    def start(self, params: Any, state: Any, outputs: int, key: Tensor) -> Any:
        return outputs, ()

    def learn(self, adapted: Any, features: Tensor, y: Tensor, key: Tensor) -> Any:
        outputs, known = adapted
        self.steps.append((len(features), int(y.argmax())))
        self.keys.append(int(key))
        self.tracked = self.tracked or torch.is_grad_enabled()
        entry = (round(255 * float(features[0, 0])), int(y[0].argmax()))
        return outputs, known if entry in known else (*known, entry)

    def answer(self, adapted: Any, features: Tensor) -> Tensor:
        outputs, known = adapted
        kept = dict(known[-self.keeps :])
        guesses = [kept.get(round(255 * float(value)), known[-1][1]) for value in features[:, 0]]
        return torch.eye(outputs)[guesses]


def followed(learner: Any, source: Any = None, **options: Any) -> Any:
    return evaluate(learner, {}, {}, source or stream(), split="test", **{"episodes": 3, **options})


def test_the_matrix_of_a_learner_that_keeps_two_classes_is_a_band_of_two():
    """After class i it knows classes i - 1 and i, so R[i, j] = 1 for these two and 0 for those before."""
    report = followed(Forgetful(2))
    expected = [[1, None, None, None], [1, 1, None, None], [0, 1, 1, None], [0, 0, 1, 1]]
    found = [[None if math.isnan(value) else value for value in row] for row in report.stream_matrix]
    assert found == expected


def test_the_figures_of_this_learner_have_closed_forms():
    """R[4, :] = (0, 0, 1, 1) and R[j, j] = 1: average 1/2, forgetting (1 + 1 + 0)/3, and the means of the rows are 1, 1, 2/3, 1/2."""
    stream_ = followed(Forgetful(2)).stream
    assert stream_["average"] == pytest.approx(0.5)
    assert stream_["learned"] == pytest.approx(1.0)
    assert stream_["forgetting"] == pytest.approx(2 / 3)
    assert stream_["backward_transfer"] == pytest.approx(-2 / 3)
    assert stream_["forgetting_from_best"] == pytest.approx(2 / 3)
    assert stream_["incremental_average"] == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    assert (stream_["lengths"], stream_["held_out"]) == ([2, 3, 4], pytest.approx([1.0, 2 / 3, 0.5]))
    assert stream_["seen"] == pytest.approx([1.0, 2 / 3, 0.5])
    assert stream_["one_pass"] is True
    assert stream_["average_ci95"] == stream_["forgetting_ci95"] == 0.0


def test_the_score_of_the_report_is_that_after_the_last_class_and_a_choice_sees_it():
    report = followed(Forgetful(1))
    assert (report.mean, report.by_step, report.steps, report.episodes) == (pytest.approx(0.25), [pytest.approx(0.25)], [0], 3)
    assert Selection.of(None, CLASSIFICATION).candidates(report) == {0: pytest.approx(0.25)}


def test_every_example_goes_through_the_network_once_and_is_learned_once_in_order():
    learner, source = Forgetful(9), stream()
    followed(learner, source)
    assert sum(learner.rows) == 3 * 4 * (3 + 2)
    assert learner.steps == [(1, part) for _ in range(3) for part in range(4) for _ in range(3)]
    assert len(set(learner.keys)) == len(learner.keys) == 36
    assert not learner.tracked


def test_a_second_evaluation_gives_the_same_figures_with_the_same_keys_and_another_seed_other_keys():
    first, second, third = Forgetful(2), Forgetful(2), Forgetful(2)
    assert followed(first).stream == followed(second).stream
    followed(third, seed=1)
    assert first.keys == second.keys != third.keys


def test_the_interval_is_students_t_over_the_trajectories():
    """A learner that knows only the class of value 20: it is right on 1/4 of a trajectory with this class, and on nothing of another."""

    class Partial(Forgetful):
        def answer(self, adapted: Any, features: Tensor) -> Tensor:
            outputs, known = adapted
            columns = [dict(known)[round(255 * float(value))] for value in features[:, 0]]
            shift = (features[:, 0] * 255).round() != 20
            return torch.eye(outputs)[(torch.tensor(columns) + shift) % outputs]

    report = followed(Partial(9), episodes=6)
    scores = torch.tensor(report.scores, dtype=torch.float64)
    assert set(scores.tolist()) == {0.0, 0.25}
    assert report.stream["average"] == pytest.approx(float(scores.mean()))
    assert report.stream["average_ci95"] == pytest.approx(t_quantile(5) * float(scores.std()) / math.sqrt(6))


def test_an_answer_with_the_column_of_a_class_to_come_is_wrong():
    class Hasty(Forgetful):
        def answer(self, adapted: Any, features: Tensor) -> Tensor:
            return torch.eye(adapted[0])[-1].expand(len(features), -1)

    report = followed(Hasty(9))
    assert report.stream["held_out"] == pytest.approx([0.0, 0.0, 0.25])


def test_an_answer_that_is_not_finite_is_wrong():
    class Broken(Forgetful):
        def answer(self, adapted: Any, features: Tensor) -> Tensor:
            right = super().answer(adapted, features)
            return torch.where(torch.arange(len(features))[:, None] % 2 == 0, right, torch.nan)

    report = followed(Broken(9))
    assert report.stream["held_out"] == pytest.approx([0.5, 0.5, 0.5])
    assert report.not_finite == 3


def test_an_algorithm_without_the_members_of_a_stream_adapts_to_all_examples_so_far_at_the_scored_lengths():
    adapted: list[tuple[int, ...]] = []

    @dataclass(frozen=True)
    class Watched(Nearest):
        def adapt(self, params: Any, state: Any, support: Examples, key: Tensor, *, training: bool = False) -> Any:
            adapted.append(tuple(support.y.shape))
            return super().adapt(params, state, support, key, training=training)

    report = followed(Watched(objective=CLASSIFICATION), episodes=2)
    assert adapted == [(6, 2), (9, 3), (12, 4)] * 2
    assert report.stream["one_pass"] is False
    assert report.stream["held_out"] == report.stream["seen"] == pytest.approx([1.0, 1.0, 1.0])
    assert [[not math.isnan(v) for v in row] for row in report.stream_matrix] == [
        [True, True, False, False],
        [True, True, True, False],
        [True, True, True, True],
    ]
    for name in ("learned", "backward_transfer", "forgetting", "forgetting_from_best"):
        assert report.stream[name] is None


def test_a_trajectory_takes_the_adaptation_in_place_where_an_algorithm_has_it():
    class InPlace(Nearest):
        def adapt(self, *arguments: Any, **named: Any) -> Any:
            raise AssertionError("the engine called adapt")

        def adapt_in_place(self, *arguments: Any) -> Any:
            return super().adapt(*arguments)

    plain, in_place = (followed(kind(objective=CLASSIFICATION), episodes=2) for kind in (Nearest, InPlace))
    assert in_place.stream == plain.stream


def test_the_first_parts_keep_their_columns_and_their_class_numbers():
    episode = stream().numbered().episode("test", 0)
    support, query = first_parts(episode, stream().trajectory("test"), 2, cut=True)
    assert (support.y.shape, query.y.shape) == ((6, 2), (4, 2))
    assert torch.equal(support.classes, episode.support.classes[:2])
    assert first_parts(episode, stream().trajectory("test"), 2, cut=False).support.y.shape == (6, 4)


def test_an_algorithm_with_a_fixed_number_of_outputs_keeps_the_columns_of_the_classes_to_come():
    source = stream(3, train_classes=3, val_classes=3)
    algorithm = Maml(Network(Classifier(Mlp((1, 1, 1), [4]), 3), "none"), CLASSIFICATION, inner_lr=0.1, inner_steps=2)
    params, state = algorithm.init(torch.tensor(0))
    report = evaluate(algorithm, params, state, source, split="test", episodes=1)
    assert report.steps == [0, 1, 2]
    assert report.stream["lengths"] == [2, 3]


@dataclass
class Constant:
    """Regression: answers with the mean target of the last function."""

    objective: Objective = REGRESSION
    batches: list[int] = field(default_factory=list)
    adapt = Forgetful.adapt
    predict = Forgetful.predict

    def features(self, params: Any, state: Any, x: Tensor) -> Tensor:
        return x

    def start(self, params: Any, state: Any, outputs: int, key: Tensor) -> Any:
        return torch.zeros(outputs), -1, 0

    def learn(self, adapted: Any, features: Tensor, y: Tensor, key: Tensor) -> Any:
        self.batches.append(len(features))
        total, number, count = adapted
        now = int(features[0, :-1].argmax())
        return (total + y.sum(0), now, count + len(y)) if now == number else (y.sum(0), now, len(y))

    def answer(self, adapted: Any, features: Tensor) -> Tensor:
        return (adapted[0] / adapted[2]).expand(len(features), 1)


def test_in_regression_forgetting_is_the_rise_of_the_error_and_steps_have_the_batch_of_the_stream():
    source = SineStreams(functions=3, steps=4, step_points=5, held_out=7, lengths=[1], trajectories=2)
    learner = Constant()
    report = evaluate(learner, {}, {}, source, split="test", episodes=2)
    assert learner.batches == [5] * (2 * 3 * 4)
    lost, learned, errors = [], [], []
    for index in range(2):
        (_, y, *_), query = source.episode("test", index)
        means = y.unflatten(0, (3, 20)).mean(dim=(1, 2))
        held = query.y.unflatten(0, (3, 7))[..., 0]
        matrix = (held[None] - means[:, None, None]).square().mean(dim=2)
        first = matrix.diagonal()
        lost.append(float((matrix[2] - first)[:2].mean()))
        learned.append(float(first.mean()))
        errors.append(float(matrix[2].mean()))
    assert report.stream["forgetting"] == pytest.approx(sum(lost) / 2, rel=1e-4)
    assert report.stream["backward_transfer"] == pytest.approx(-sum(lost) / 2, rel=1e-4)
    assert report.stream["learned"] == pytest.approx(sum(learned) / 2, rel=1e-4)
    assert report.mean == pytest.approx(sum(errors) / 2, rel=1e-4)
    assert observation_variance(learner, {}, {}, source, episodes=2) is None


def test_an_error_that_is_not_finite_is_infinite_in_the_matrix():
    outputs = torch.tensor([[1.0], [math.nan], [2.0], [2.0]])
    assert by_part(REGRESSION, outputs, torch.ones(4, 1), 2).tolist() == [math.inf, 1.0]


def test_training_episodes_are_no_trajectories():
    with pytest.raises(UserError, match="split=train of a stream"):
        evaluate(Forgetful(1), {}, {}, stream(), split="train", episodes=1)


def test_a_validation_logs_the_score_after_each_length_and_the_forgetting():
    selection = Selection.of(None, CLASSIFICATION)
    validation = Validation(Forgetful(2), stream(), selection, Runner(Plan(1)), 3, 1)
    _, report = validation.run({}, {})
    values = values_to_log(selection, report)
    assert {key: values[key] for key in values if key.startswith("val_stream")} == {
        "val_stream/2": pytest.approx(1.0),
        "val_stream/3": pytest.approx(2 / 3),
        "val_stream/4": pytest.approx(0.5),
    }
    assert values["val/forgetting"] == pytest.approx(2 / 3)
