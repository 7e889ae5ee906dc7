"""The conditional neural process: its prediction by hand, and the symmetries of a set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import Double, Lines, composed
from torch import Tensor

from metarun import draws, testing
from metarun.algorithms.cnp import Cnp
from metarun.algorithms.parts.densities import densities
from metarun.algorithms.parts.perceptrons import perceptron
from metarun.engine.evaluation import evaluate
from metarun.errors import UserError
from metarun.objectives import REGRESSION
from metarun.predictive import mean, nll
from metarun.types import Episode, Examples, Params, part_of
from metarun.wiring.build import build

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


def test_the_order_of_the_support_examples_changes_nothing():
    algorithm, params = small()
    support, query = episode()
    turned = Examples(support.x.flip(0), support.y.flip(0))
    outputs = [algorithm.predict(algorithm.adapt(params, {}, each, KEY), query.x) for each in (support, turned)]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


def test_a_query_does_not_depend_on_the_other_queries():
    algorithm, params = small()
    support, query = episode()
    adapted = algorithm.adapt(params, {}, support, KEY)
    torch.testing.assert_close(algorithm.predict(adapted, query.x)[:2], algorithm.predict(adapted, query.x[:2]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("content", [7.0, float("inf"), float("nan")])
def test_the_content_of_padding_reaches_neither_loss_nor_gradient(content: float):
    algorithm, params = small()
    support, query = episode()

    def longer(part: Examples) -> Examples:
        x, y = (torch.cat([each, torch.full_like(each[:1], content)]) for each in part[:2])
        return Examples(x, y, torch.arange(len(x)) < len(part.x))

    def gradients(*parts: Examples) -> tuple[Tensor, ...]:
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        loss = algorithm.loss(leaves, {}, Episode(*parts), KEY, torch.tensor(0))[0]
        return (loss, *torch.autograd.grad(loss, list(leaves.values())))

    testing.assert_same(gradients(longer(support), longer(query)), gradients(support, query), "padding changes the gradient")


def test_the_number_of_support_examples_may_differ_from_training():
    algorithm, params = small()
    support, query = episode()
    fewer = Examples(support.x[:1], support.y[:1])
    assert algorithm.predict(algorithm.adapt(params, {}, fewer, KEY), query.x).shape == query.y.shape


def test_evaluation_scores_the_distribution_without_a_fitted_variance():
    algorithm, params = small()
    report = evaluate(algorithm, params, {}, Double(Lines()), split="test", episodes=4)
    assert report.nll is not None
    assert report.nll == report.own_nll == pytest.approx(report.joint_nll)
    assert report.variance is None


def write_table(folder: Path) -> list[str]:
    rows = [f"t{task},{0.1 * task + row},{row % 3},{row * task % 7},{row + task}" for task in range(12) for row in range(8)]
    (folder / "table.csv").write_text("\n".join(["task,x,z,y,w", *rows]) + "\n")
    words = ["task=table", f"task.path={folder / 'table.csv'}", "task.task_column=task", "task.target=[y,w]"]
    return [*words, "task.shots=3", "task.queries=2", "device.threads=1"]


@pytest.mark.parametrize("option", ["cnp", "tnp"])
def test_it_takes_its_sizes_from_a_table_of_two_inputs_and_two_targets(option: str, tmp_path: Path):
    parts = build(composed(f"algo={option}", *write_table(tmp_path)))
    assert (parts.algorithm.inputs, parts.algorithm.outputs) == (2, 2)  # type: ignore[attr-defined]
    testing.check_shapes(parts.algorithm, parts.source)
    testing.check_finite_gradients(parts.algorithm, parts.source)


@pytest.mark.parametrize("option", ["cnp", "tnp"])
def test_a_classification_is_refused_in_a_sentence(option: str):
    with pytest.raises(UserError, match=r"does regression only, and this task is classification"):
        build({**composed(f"algo={option}", "task=sinusoid"), "task": {"_target_": "small.small_images"}})


def test_bad_options_are_told_in_a_sentence():
    for options, sentence in (
        ({"encoder_widths": ()}, r"algo\.encoder_widths=\[\] must be a list of one or more layers"),
        ({"decoder_widths": (4, 0)}, r"algo\.decoder_widths=\[4, 0\] must be"),
        ({"components": 0}, r"algo\.components=0 must be at least 1"),
        ({"min_std": 0.0}, r"algo\.min_std=0\.0 must be above 0 and below 1"),
    ):
        with pytest.raises(UserError, match=sentence):
            Cnp(REGRESSION, 1, 1, **options)  # type: ignore[arg-type]
