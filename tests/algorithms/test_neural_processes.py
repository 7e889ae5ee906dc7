"""What both neural processes share: the symmetries of a set, padding, sizes from the task, and a report without a fitted variance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import Double, Lines, composed
from torch import Tensor

from metarun import draws, testing
from metarun.algorithms.cnp import Cnp
from metarun.algorithms.tnp import Tnp
from metarun.engine.evaluation import evaluate
from metarun.errors import UserError
from metarun.objectives import REGRESSION
from metarun.types import Episode, Examples
from metarun.wiring.build import build

KEY = draws.key(0, "process")
PROCESSES = {
    "cnp": Cnp(REGRESSION, 4, 2, encoder_widths=(6, 5), decoder_widths=(7,), components=2),
    "tnp": Tnp(REGRESSION, 4, 2, width=8, embed_layers=2, layers=3, heads=2, hidden=6, components=2),
}
TOLERANCE = {"cnp": 1e-12, "tnp": 1e-11}
EACH = pytest.mark.parametrize("option", PROCESSES)


def episode() -> Episode:
    one: Episode = testing.double(Lines().episode("train", 0))
    return one


@EACH
def test_the_order_of_the_support_examples_changes_nothing(option: str):
    algorithm, (support, query) = PROCESSES[option], episode()
    params = testing.start(algorithm)[0]
    turned = Examples(support.x.flip(0), support.y.flip(0))
    outputs = [algorithm.predict(algorithm.adapt(params, {}, each, KEY), query.x) for each in (support, turned)]
    torch.testing.assert_close(*outputs, rtol=TOLERANCE[option], atol=TOLERANCE[option])


@EACH
def test_a_query_does_not_depend_on_the_other_queries(option: str):
    algorithm, (support, query) = PROCESSES[option], episode()
    adapted = algorithm.adapt(testing.start(algorithm)[0], {}, support, KEY)
    alone, among = algorithm.predict(adapted, query.x[:2]), algorithm.predict(adapted, query.x)[:2]
    torch.testing.assert_close(among, alone, rtol=TOLERANCE[option], atol=TOLERANCE[option])


@EACH
@pytest.mark.parametrize("content", [7.0, float("inf"), float("nan")])
def test_the_content_of_padding_reaches_neither_loss_nor_gradient(option: str, content: float):
    algorithm, (support, query) = PROCESSES[option], episode()
    params = testing.start(algorithm)[0]

    def longer(part: Examples) -> Examples:
        x, y = (torch.cat([each, torch.full_like(each[:1], content)]) for each in part[:2])
        return Examples(x, y, torch.arange(len(x)) < len(part.x))

    def gradients(*parts: Examples) -> tuple[Tensor, ...]:
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        loss = algorithm.loss(leaves, {}, Episode(*parts), KEY, torch.tensor(0))[0]
        found = torch.autograd.grad(loss, list(leaves.values()))
        return (loss, *found)

    testing.assert_same(gradients(longer(support), longer(query)), gradients(support, query), "padding changes the gradient")


@EACH
def test_evaluation_scores_the_distribution_without_a_fitted_variance(option: str):
    algorithm = PROCESSES[option]
    report = evaluate(algorithm, testing.start(algorithm)[0], {}, Double(Lines()), split="test", episodes=4)
    assert report.nll is not None
    assert report.nll == report.own_nll == pytest.approx(report.joint_nll)
    assert report.variance is None


def write_table(folder: Path) -> list[str]:
    rows = [f"t{task},{0.1 * task + row},{row % 3},{row * task % 7},{row + task}" for task in range(12) for row in range(8)]
    (folder / "table.csv").write_text("\n".join(["task,x,z,y,w", *rows]) + "\n")
    words = ["task=table", f"task.path={folder / 'table.csv'}", "task.task_column=task", "task.target=[y,w]"]
    return [*words, "task.shots=3", "task.queries=2", "device.threads=1"]


@EACH
def test_it_takes_its_sizes_from_a_table_of_two_inputs_and_two_targets(option: str, tmp_path: Path):
    parts = build(composed(f"algo={option}", *write_table(tmp_path)))
    assert (parts.algorithm.inputs, parts.algorithm.outputs) == (2, 2)  # type: ignore[attr-defined]
    testing.check_shapes(parts.algorithm, parts.source)
    testing.check_finite_gradients(parts.algorithm, parts.source)


@EACH
def test_a_classification_is_refused_in_a_sentence(option: str):
    with pytest.raises(UserError, match=r"does regression only, and this task is classification"):
        build({**composed(f"algo={option}", "task=sinusoid"), "task": {"_target_": "small.small_images"}})
