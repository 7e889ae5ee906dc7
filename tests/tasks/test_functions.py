"""Episodes of random functions: one function a task, new inputs, and the same function behind `curve`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarun import draws
from metarun.tasks.functions import Function, FunctionTasks
from metarun.tasks.points import PointSampling
from metarun.testing import check_source


@dataclass(frozen=True)
class Slopes:
    """y = s x, with a slope s for each task."""

    def draw(self, key: Tensor) -> Function:
        return {"slope": draws.uniform(key)}

    def inputs(self, key: Tensor, count: int) -> Tensor:
        return draws.uniform(key, count, 1)

    def values(self, function: Function, x: Tensor) -> Tensor:
        return function["slope"].reshape(-1, 1, 1) * x


SOURCE = FunctionTasks(Slopes(), PointSampling(shots=3, queries=4, train_queries=2))


def test_the_source_keeps_the_contract_of_task_sources():
    check_source(SOURCE)


def test_an_episode_has_the_sizes_of_its_split():
    for split, queries in (("train", 2), ("val", 4)):
        support, query = SOURCE.episode(split, 5)
        assert (support.x.shape, support.y.shape, query.x.shape) == ((3, 1), (3, 1), (queries, 1))


def test_support_and_query_lie_on_one_function_which_differs_from_task_to_task():
    slopes = []
    for index in range(3):
        support, query = SOURCE.episode("val", index)
        ratios = torch.cat([support.y / support.x, query.y / query.x])
        torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))
        slopes.append(float(ratios[0]))
    assert len({round(slope, 4) for slope in slopes}) == 3


def test_the_curve_of_an_episode_goes_through_its_points():
    support, _ = SOURCE.episode("test", 7)
    torch.testing.assert_close(SOURCE.curve("test", 7, support.x), support.y)
