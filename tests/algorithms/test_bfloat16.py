"""Every algorithm computes under `device.precision=bf16`: its products and convolutions in bfloat16, all that it keeps in float32.

Runs are on the CPU. An operation of torch that takes tensors of one type alone fails there as on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import Lines, algorithm_of, few_shot, kinds_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from metarun import draws
from metarun.compute.plan import Plan
from metarun.compute.running import Runner
from metarun.engine.evaluation import TaskScores
from metarun.engine.training import TaskGradients
from metarun.episodes import deal
from metarun.testing import start

ALGORITHMS = [file.stem for file in sorted((Path(__file__).parents[2] / "configs/algo").glob("*.yaml")) if not file.stem.endswith("_")]
CASES = [(name, kind) for name in ALGORITHMS for kind in kinds_of(name)]
SOURCES = {"classification": few_shot(shots=1, queries=2), "regression": Lines(shots=3, queries=2)}
ONE_TYPE = ("convolution", "convolution_backward", "mm", "bmm", "addmm", "baddbmm")
"""Operations of torch that a GPU computes in one type alone."""


class Watched(TorchDispatchMode):
    """Notes the types of the operations of `ONE_TYPE`, and fails where the arguments of one differ in type."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ONE_TYPE:
            found = {arg.dtype for arg in args if isinstance(arg, Tensor)}
            assert len(found) == 1, f"{func} gets {found}"
            self.types |= found
        return func(*args, **(kwargs or {}))


def single(tree: Any) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, tree)


def step_and_scores(name: str, kind: str, autocast: str | None, runs: int = 1) -> tuple[Any, dict[str, Tensor]]:
    """Return gradient, losses and aux of a step of two tasks, and the figures of two validation tasks."""
    algorithm, source = algorithm_of(name, kind), SOURCES[kind]
    params, state = single(start(algorithm))
    variance = torch.tensor(0.1) if kind == "regression" else None
    dealt = {split: (deal(source, split, torch.arange(2)), draws.key(0, split, torch.arange(2))) for split in ("train", "val")}
    with Runner(Plan(2, autocast=autocast)) as runner:
        gradients, scores = TaskGradients(algorithm), TaskScores(algorithm, "all")
        result = runner.mean_gradient(gradients, (params, state, torch.tensor(3)), dealt["train"], runs=runs)
        with torch.no_grad():
            (figures,) = runner.map(scores, (params, state, variance), [dealt["val"]], runs=runs)
    assert not result.aux.state or algorithm.update_state(state, result.aux.state).keys() == state.keys()
    return result, figures


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_step_and_a_score_are_finite_in_float32_and_near_those_of_float32(name: str, kind: str):
    expected, expected_figures = step_and_scores(name, kind, None)
    with Watched() as watched:
        found, figures = step_and_scores(name, kind, "cpu")
    assert torch.bfloat16 in watched.types or name == "nearest"  # its only products are distances
    for leaf in (*found.gradient.values(), found.losses, *found.aux.metrics.values(), *found.aux.state.values(), *figures.values()):
        assert leaf.dtype is not torch.bfloat16
        assert leaf.isfinite().all()
    torch.testing.assert_close(found.losses, expected.losses, rtol=0.05, atol=0.02)
    torch.testing.assert_close(figures["nll"], expected_figures["nll"], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("name", ["maml", "protonet", "reptile"])
def test_a_recorded_program_computes_the_same(name: str):
    (found, figures), (recorded, recorded_figures) = (step_and_scores(name, "classification", "cpu", runs) for runs in (1, 1000))
    torch.testing.assert_close(recorded.losses, found.losses)
    torch.testing.assert_close(recorded.gradient, found.gradient)
    torch.testing.assert_close(recorded_figures["nll"], figures["nll"])
