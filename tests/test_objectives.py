from __future__ import annotations

import math

import pytest
import torch
from torch.func import grad, vmap

from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION, REGRESSION, Objective, error, objective

BOTH = pytest.mark.parametrize("goal", [CLASSIFICATION, REGRESSION], ids=lambda goal: goal.kind)


def one_hot(labels: list[int], ways: int) -> torch.Tensor:
    return torch.eye(ways, dtype=torch.float64)[labels]


def test_cross_entropy_by_hand():
    """Logits (ln 3, 0) give class 0 the probability 3/4; with labels 0 and 1 the losses are -ln 3/4 and -ln 1/4."""
    outputs = torch.tensor([[math.log(3.0), 0.0]] * 2, dtype=torch.float64)
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    torch.testing.assert_close(CLASSIFICATION.loss(outputs, one_hot([0, 1], 2)).item(), expected)


def test_squared_error_by_hand_is_averaged_over_targets_and_rows():
    """Errors (1, 2) and (0, 3): row means 2.5 and 4.5, together 3.5."""
    outputs = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    assert REGRESSION.loss(outputs, torch.zeros(2, 2)) == 3.5
    assert REGRESSION.score(outputs, torch.zeros(2, 2)) == 3.5


def test_accuracy_counts_rows_whose_largest_output_is_their_class():
    outputs = torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert CLASSIFICATION.score(outputs, one_hot([0, 1, 1, 1], 2).float()) == 0.75


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_output_that_is_not_finite_is_a_wrong_answer_and_an_error_that_is_not_finite(value: float):
    """In the second row the right class wins unless the value at the wrong one, or a value at the right one, is not finite."""
    outputs = torch.tensor([[2.0, 1.0], [value, 1.0]])
    y = one_hot([0, 1], 2).float()
    assert CLASSIFICATION.score(outputs, y) == 0.5, "the row that is not finite is a wrong answer"
    assert CLASSIFICATION.score(torch.tensor([[value, 1.0]]), y[:1]) == 0.0
    assert not REGRESSION.score(outputs, y).isfinite()
    assert CLASSIFICATION.score(outputs, y, torch.tensor([True, False])) == 1.0


@BOTH
def test_padding_rows_change_neither_loss_nor_score_nor_gradient(goal: Objective):
    outputs = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = one_hot([0, 2, 1, 1], 3)
    padding = torch.tensor([[math.inf, -math.inf, math.nan]] * 2, dtype=torch.float64)
    padded, padded_y = torch.cat([outputs, padding]), torch.cat([y, one_hot([0, 0], 3)])
    mask = torch.tensor([True] * 4 + [False] * 2)
    assert goal.loss(padded, padded_y, mask) == goal.loss(outputs, y)
    assert goal.score(padded, padded_y, mask) == goal.score(outputs, y)
    gradient = grad(goal.loss)(padded, padded_y, mask)
    torch.testing.assert_close(gradient[:4], grad(goal.loss)(outputs, y))
    assert (gradient[4:] == 0).all()


@BOTH
def test_an_all_padding_mask_gives_zero_loss_and_zero_gradient(goal: Objective):
    outputs, y, mask = torch.ones(2, 2), torch.eye(2), torch.zeros(2, dtype=torch.bool)
    assert goal.loss(outputs, y, mask) == 0
    assert (grad(goal.loss)(outputs, y, mask) == 0).all()


def test_an_absent_class_at_minus_a_billion_changes_neither_loss_nor_gradient():
    outputs, y = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), one_hot([0, 1, 1], 2).float()
    wide, wide_y = torch.cat([outputs, torch.full((3, 1), -1e9)], dim=1), torch.cat([y, torch.zeros(3, 1)], dim=1)
    torch.testing.assert_close(CLASSIFICATION.loss(wide, wide_y), CLASSIFICATION.loss(outputs, y))
    gradient = grad(CLASSIFICATION.loss)(wide, wide_y)
    torch.testing.assert_close(gradient[:, :2], grad(CLASSIFICATION.loss)(outputs, y))
    assert (gradient[:, 2] == 0).all()


@BOTH
@pytest.mark.parametrize("masked", [False, True])
def test_first_and_second_derivatives_agree_with_finite_differences(goal: Objective, masked: bool):
    outputs = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.tensor([True, True, False, True, False]) if masked else None
    y = one_hot([0, 1, 2, 2, 0], 3)
    assert torch.autograd.gradcheck(lambda o: goal.loss(o, y, mask), outputs)
    assert torch.autograd.gradgradcheck(lambda o: goal.loss(o, y, mask), outputs)


@BOTH
def test_mapping_over_tasks_equals_a_loop(goal: Objective):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 4, 2, generator=generator)
    y = torch.eye(2)[torch.randint(2, (3, 4), generator=generator)]
    mask = torch.tensor([[True, True, True, False], [True] * 4, [False, True, True, False]])
    for function in (goal.loss, goal.score, grad(goal.loss)):
        mapped = vmap(function)(outputs, y, mask)
        torch.testing.assert_close(mapped, torch.stack([function(*parts) for parts in zip(outputs, y, mask, strict=True)]))
    torch.testing.assert_close(
        vmap(goal.shot_scale)(y, mask), torch.stack([goal.shot_scale(*parts) for parts in zip(y, mask, strict=True)])
    )


def test_shot_scale_is_the_number_of_classes_present():
    """10 examples of 5 classes, 2 shots: the sum over shots is 10/2 = 5 times the mean. Without the rows of classes 3 and 4, 3 times."""
    y = torch.eye(5).repeat_interleave(2, dim=0)
    assert CLASSIFICATION.shot_scale(y) == 5
    assert CLASSIFICATION.shot_scale(y, torch.arange(10) < 6) == 3
    assert REGRESSION.shot_scale(torch.randn(10, 1)) == 1


def test_the_kinds_name_their_metric_and_its_direction():
    facts = [(each.kind, each.metric, each.higher_is_better) for each in (objective("classification"), objective("regression"))]
    assert facts == [("classification", "accuracy", True), ("regression", "mse", False)]


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(UserError, match=r"classification or regression, not 'regresion'. Did you mean 'regression'\?"):
        objective("regresion")


@BOTH
def test_shapes_that_would_broadcast_are_refused(goal: Objective):
    with pytest.raises(ValueError, match=r"\(4,\) do not fit targets of shape \(4, 1\)"):
        goal.loss(torch.zeros(4), torch.zeros(4, 1))


def test_the_error_for_a_sweeper_falls_where_the_score_improves_and_is_infinite_without_a_score():
    assert error("accuracy", 0.75) == 0.25
    assert error("accuracy", 1.0) == 0.0
    assert error("mse", 0.75) == 0.75
    assert [error(metric, score) for metric in ("accuracy", "mse") for score in (None, math.nan, math.inf)] == [math.inf] * 6
