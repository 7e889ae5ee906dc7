"""The outer loop: what it deals, differentiates, logs, validates and saves, and when."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Lines, algorithm_of, conv_network, dense_network, few_shot, run_engine
from torch import Tensor

from metarun import testing
from metarun.algorithms.maml import Maml
from metarun.compute.plan import Plan
from metarun.engine.training import gradients_of
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION, REGRESSION, Objective
from metarun.records.tracking import TIME_KEYS
from metarun.types import Aux, Episode, Examples, Params, State


@pytest.mark.parametrize("name", ["maml", "fomaml", "reptile", "protonet"])
def test_chunked_equals_batched_equals_looped_through_several_steps(tmp_path: Path, name: str):
    runs = {chunk: run_engine(tmp_path / str(chunk), algorithm_of(name), few_shot(), tasks_per_step=4, chunk=chunk) for chunk in (1, 3, 4)}
    for chunk in (1, 3):
        testing.assert_same(
            (runs[chunk].position.params, runs[chunk].position.state),
            (runs[4].position.params, runs[4].position.state),
            f"chunks of {chunk}",
        )
        for line, whole in zip(runs[chunk].lines, runs[4].lines, strict=True):
            assert {key: line[key] for key in line if key not in TIME_KEYS} == pytest.approx(
                {key: whole[key] for key in whole if key not in TIME_KEYS}, abs=1e-9
            )


@pytest.mark.parametrize("name", ["maml", "reptile", "protonet"])
def test_workers_change_no_bit(tmp_path: Path, name: str):
    """Which thread runs a chunk, and whether the chunks run recorded and side by side or as written and in turn."""
    plans = {"in turn": Plan(1), "side by side": Plan(1, workers=2)}
    runs = {
        way: run_engine(tmp_path / way, algorithm_of(name), few_shot(), tasks_per_step=4, steps=3, plan=plan) for way, plan in plans.items()
    }
    one, two = (runs[way].position for way in plans)
    testing.assert_same((one.params, one.state), (two.params, two.state), "workers", tolerance=0.0)


def test_a_step_descends_along_the_mean_gradient_of_its_tasks(tmp_path: Path):
    algorithm = Maml(dense_network(), REGRESSION, inner_lr=0.05)
    params, state = testing.start(algorithm)
    run = run_engine(tmp_path, algorithm, Lines(), steps=1, tasks_per_step=3)
    gradients = [torch.zeros_like(value) for value in params.values()]
    for index in range(3):
        episode = testing.double(Lines().episode("train", index))
        leaves = [value.clone().requires_grad_() for value in params.values()]
        loss, _ = algorithm.loss(dict(zip(params, leaves, strict=True)), state, episode, torch.tensor(0), torch.tensor(0))
        gradients = [total + part for total, part in zip(gradients, torch.autograd.grad(loss, leaves), strict=True)]
    expected = {name: value - 0.1 * gradient / 3 for (name, value), gradient in zip(params.items(), gradients, strict=True)}
    testing.assert_same(run.position.params, expected, "the step")
    norm = math.sqrt(sum(float((gradient / 3).square().sum()) for gradient in gradients))
    assert run.lines[0]["train/gradient_norm"] == pytest.approx(norm)


@dataclass(frozen=True)
class Recorder:
    """Its loss in step s is `losses[s]`, its validation score `scores` in turn; notes what the engine calls it with."""

    objective: Objective = REGRESSION
    losses: tuple[float, ...] = tuple(float(i) for i in range(20))
    scores: tuple[float, ...] = ()
    sees: dict[str, list[Any]] = field(default_factory=lambda: {"update": [], "step": [], "choose": []})
    on_update: Callable[[int], None] = lambda number: None

    def init(self, key: Tensor) -> tuple[Params, State]:
        return {"w": torch.zeros(1)}, {"position": torch.zeros(())}

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Tensor:
        done = int(state["position"])
        return torch.tensor(self.scores[done - 1] if self.scores else 1.0)

    def predict(self, adapted: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return adapted.sqrt().expand(len(x), 2)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        loss = self.losses[int(step)] + params["w"].sum()
        return loss, Aux({"loss": loss.detach() + 0.0 * key}, {"first": episode.support.x[0, 0], "key": key})

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        self.sees["update"].append(aux)
        self.on_update(len(self.sees["update"]))
        return {"position": state["position"] + 1.0}


@dataclass(frozen=True)
class Numbered:
    """Episode n has the number n as every input, and zero as every target."""

    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        part = Examples(torch.full((2, 4), float(index)), torch.zeros(2, 2))
        return Episode(part, part)


def test_step_s_trains_on_the_next_episodes_and_updates_the_state_once_with_all_of_them_in_order(tmp_path: Path):
    algorithm = Recorder()
    run_engine(tmp_path, algorithm, Numbered(), steps=3, tasks_per_step=5, chunk=2)
    seen = [aux["first"].tolist() for aux in algorithm.sees["update"]]
    assert seen == [[0.0, 1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0, 9.0], [10.0, 11.0, 12.0, 13.0, 14.0]]
    keys = torch.cat([aux["key"] for aux in algorithm.sees["update"]])
    assert len(keys.unique()) == 15, "each episode has noise of its own"


def test_a_logged_point_is_the_mean_over_the_steps_since_the_last_one(tmp_path: Path):
    run = run_engine(
        tmp_path, Recorder(losses=(1.0, 2.0, 6.0, 4.0, 4.0, 1.0, 9.0)), Numbered(), steps=7, log_every=3, optimizer={"lr": 0.0}
    )
    points = {line["step"]: line["train/loss"] for line in run.lines if "train/loss" in line}
    assert points == pytest.approx({3: 3.0, 6: 3.0, 7: 9.0})
    assert all(line["speed/tasks_per_second"] > 0 for line in run.lines if "train/loss" in line)


def test_validation_comes_when_due_and_at_the_end(tmp_path: Path):
    run = run_engine(tmp_path, Recorder(), Numbered(), steps=5, eval_every=2)
    assert [line["step"] for line in run.lines if "val/mse" in line] == [2, 4, 5]
    run = run_engine(tmp_path / "never", Recorder(), Numbered(), steps=3, eval_every=0)
    assert [line["step"] for line in run.lines if "val/mse" in line] == [3]


def test_the_best_is_saved_only_where_validation_improves(tmp_path: Path):
    """Mean squared errors 4, 5, 3, 3, 2: lower is better, and an equal score is no improvement."""
    run = run_engine(tmp_path, Recorder(scores=(4.0, 5.0, 3.0, 3.0, 2.0)), Numbered(), steps=5, eval_every=1)
    assert [step for name, step in run.saved if name == "best.pt"] == [1, 3, 5]
    assert run.position.best == {"score": pytest.approx(2.0), "mean": pytest.approx(2.0), "step": 5}


def test_a_training_ends_when_its_patience_is_used_up_and_saves_there(tmp_path: Path):
    """Mean squared errors 4, 3, 3, 5, 1: after the second validation, two bring no better score, so step 5 never comes."""
    scored = Recorder(scores=(4.0, 3.0, 3.0, 5.0, 1.0))
    run = run_engine(tmp_path, scored, Numbered(), steps=9, eval_every=1, patience=2)
    assert (run.position.step, run.position.unimproved) == (4, 2)
    assert run.position.best is not None
    assert run.position.best["step"] == 2
    assert run.saved[-1] == ("last.pt", 4)


def test_a_resumed_run_counts_on(tmp_path: Path):
    """As above: the killed run had seen one validation without a better score when it saved after step 3."""
    runs = {}
    for name, stopped in (("straight", 9), ("killed", 3)):
        runs[name] = run_engine(
            tmp_path / name, Recorder(scores=(4.0, 3.0, 3.0, 5.0, 1.0)), Numbered(), steps=stopped, eval_every=1, patience=2
        )
    half = runs["killed"].position
    assert (half.step, half.unimproved) == (3, 1)
    scored = Recorder(scores=(4.0, 3.0, 3.0, 5.0, 1.0))
    (tmp_path / "killed/metrics.jsonl").unlink()
    run = run_engine(tmp_path / "killed", scored, Numbered(), steps=9, eval_every=1, patience=2, position=half)
    assert (run.position.step, run.position.unimproved, run.position.best) == (4, 2, runs["straight"].position.best)


def test_without_patience_a_training_takes_all_its_steps(tmp_path: Path):
    run = run_engine(tmp_path, Recorder(scores=(1.0, 2.0, 3.0, 4.0)), Numbered(), steps=4, eval_every=1)
    assert (run.position.step, run.position.unimproved) == (4, 3)


def test_a_validation_without_a_finite_score_is_never_the_best(tmp_path: Path):
    run = run_engine(tmp_path, Recorder(scores=(math.nan, 3.0, math.inf)), Numbered(), steps=3, eval_every=1)
    assert [step for name, step in run.saved if name == "best.pt"] == [2]
    assert run.position.best is not None
    assert run.position.best["step"] == 2


def test_higher_is_better_in_classification(tmp_path: Path):
    algorithm = Maml(conv_network(), CLASSIFICATION)
    run = run_engine(tmp_path, algorithm, few_shot(), steps=6, eval_every=1, eval_episodes=4, optimizer={"name": "Adam", "lr": 0.05})
    scores = {line["step"]: line["val/accuracy"] for line in run.lines if "val/accuracy" in line}
    assert run.position.best is not None
    assert run.position.best["score"] == max(scores.values())
    assert run.position.best["step"] == min(step for step, score in scores.items() if score == max(scores.values()))


def test_last_is_saved_at_the_start_on_schedule_and_at_the_end(tmp_path: Path):
    run = run_engine(tmp_path, Recorder(), Numbered(), steps=5, save_every=2)
    assert [step for name, step in run.saved if name == "last.pt"] == [0, 2, 4, 5]


def test_what_is_logged_before_a_save_is_on_disk(tmp_path: Path):
    lines_at_save: list[int] = []

    def count(position: Any, name: str) -> None:
        lines_at_save.append(len((tmp_path / "metrics.jsonl").read_text().splitlines()))

    run_engine(tmp_path, Recorder(), Numbered(), steps=2, save_every=1, on_save=count)
    assert lines_at_save == [0, 1, 3, 3], "start; the line of step 1; step 2's line and validation, for best and last"


def test_choose_is_called_at_every_validation_so_that_checkpoints_compete_under_the_rate_that_they_get(tmp_path: Path):
    @dataclass(frozen=True)
    class Chooser(Recorder):
        def choose(self, params: Params, state: State, score: Callable[[State], dict[int, float]]) -> State:
            self.sees["choose"].append((float(state["position"]), score(state)))
            return {"position": torch.tensor(1.0)}

    algorithm = Chooser(scores=(9.0, 4.0, 4.0))
    run = run_engine(tmp_path, algorithm, Numbered(), steps=3, eval_every=2)
    seen = [(2.0, {0: pytest.approx(-4.0)}), (2.0, {0: pytest.approx(-4.0)})]
    assert algorithm.sees["choose"] == seen, "a higher score is better, so an error is negative; the choice stays in the state"
    assert [line["val/mse"] for line in run.lines if "val/mse" in line] == pytest.approx([9.0, 9.0])


# Losses that are not finite.


def test_a_loss_that_is_not_finite_names_step_task_and_inner_step_and_keeps_the_checkpoint(tmp_path: Path):
    saved: list[tuple[str, int]] = []
    algorithm = Maml(dense_network(), REGRESSION, inner_lr=0.05, inner_steps=2)
    with pytest.raises(UserError) as caught:
        run_engine(
            tmp_path, algorithm, Spoiled(5, "support"), steps=4, save_every=1, on_save=lambda at, name: saved.append((name, at.step))
        )
    assert str(caught.value).startswith(
        "the loss of step 3 is not finite (training task 5 after inner step 1); the last checkpoint is kept."
    )
    assert saved == [("last.pt", 0), ("last.pt", 1), ("last.pt", 2)]


def test_a_loss_that_only_the_query_spoils_says_so(tmp_path: Path):
    with pytest.raises(UserError, match=r"step 2 is not finite \(training task 2 in the query loss\)"):
        run_engine(tmp_path, Maml(dense_network(), REGRESSION, inner_lr=0.05), Spoiled(2, "targets"), steps=2)


def test_an_inner_rate_that_explodes_says_after_which_inner_step(tmp_path: Path):
    with pytest.raises(UserError, match=r"step 1 is not finite \(training task 0 after inner step [23]\); the last checkpoint is kept\.$"):
        run_engine(tmp_path, Maml(dense_network(), REGRESSION, inner_lr=1e120, inner_steps=3), Lines(), steps=2)


@dataclass(frozen=True)
class Spoiled:
    """Linear tasks, of which one has a NaN in its support inputs or in its query targets."""

    number: int
    where: str
    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        support, query = Lines().episode(split, index)
        if split == "train" and index == self.number:
            if self.where == "support":
                support = support._replace(x=support.x.index_fill(0, torch.tensor([0]), math.nan))
            else:
                query = query._replace(y=query.y.index_fill(0, torch.tensor([0]), math.nan))
        return Episode(support, query)


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_a_sentence(tmp_path: Path):
    @dataclass(frozen=True)
    class Rooted(Recorder):
        def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
            loss = params["w"].square().sum().sqrt()  # a finite value, whose derivative at 0 is 0/0
            return loss, Aux({"loss": loss.detach()}, {})

    with pytest.raises(UserError, match="the gradient of step 1 is not finite, though its loss is"):
        run_engine(tmp_path, Rooted(), Numbered(), steps=2)


def test_a_parameter_that_the_loss_does_not_use_has_gradient_zero():
    @dataclass(frozen=True)
    class Unused(Recorder):
        def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
            loss = params["w"].sum() * 2.0
            return loss, Aux({"loss": loss.detach()}, {})

    batch, keys = testing.first_episodes(Numbered(), 3)
    params = {"w": torch.ones(1, dtype=torch.float64), "idle": torch.ones(2, dtype=torch.float64)}
    gradients, losses, _ = gradients_of(Unused(), params, {}, batch, keys, torch.tensor(0))
    assert gradients["w"].tolist() == [6.0], "the sum over three tasks"
    assert gradients["idle"].tolist() == [0.0, 0.0]
    assert losses.tolist() == [2.0, 2.0, 2.0]
    assert not params["w"].requires_grad
