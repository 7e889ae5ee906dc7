"""Learning curves and scores by inner step."""

from __future__ import annotations

from typing import Any

from report_entries import entry, regression

from metarun.commands.reporting.curves import curves, curves_section, history, presentations_section, steps_section, words
from metarun.commands.reporting.drawing import Gallery
from metarun.commands.reporting.page import Picture, Section

LOG = [{"step": step, "val/accuracy": step / 100, "train/loss": 1.0, "train/accuracy": 0.5} for step in range(0, 60, 10)]


def pictures(section: Section | None) -> list[str]:
    assert section is not None
    return [block.name for block in section.blocks if isinstance(block, Picture)]


def test_a_curve_has_the_logged_numbers() -> None:
    (line,) = curves([entry(history=LOG)], "val/accuracy")
    assert line.x == [0, 10, 20, 30, 40, 50]
    assert line.y == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_numbers_that_are_not_finite_are_left_out() -> None:
    assert history([{"step": 1, "a": None}, {"step": "x", "a": 1.0}, {"step": 2, "a": 3}, {}], "a") == [(2.0, 3.0)]


def test_a_long_log_is_thinned_and_keeps_its_last_point() -> None:
    (line,) = curves([entry(history=[{"step": step, "a": 1.0} for step in range(10_001)])], "a")
    assert len(line.x) <= 201
    assert line.x[-1] == 10_000


def test_validation_and_training_are_drawn() -> None:
    assert pictures(curves_section([entry(history=LOG)], Gallery())) == ["curve_val_accuracy", "curve_train_accuracy"]
    assert pictures(curves_section([entry(history=LOG)], Gallery(), "train/loss")) == ["curve_train_loss"]
    assert curves_section([entry()], Gallery()) is None
    assert curves_section([entry(history=LOG[:1])], Gallery()) is None


def test_each_metric_has_its_curves() -> None:
    errors = [{"step": step, "val/mse": 1.0, "val/mse_median": 0.5, "train/mse": 2.0} for step in (10, 20)]
    found = curves_section([entry(history=LOG), regression("sinusoid", history=errors)], Gallery())
    assert pictures(found) == ["curve_val_accuracy", "curve_train_accuracy", "curve_val_mse_median", "curve_train_mse"]


def captions(*configs: dict[str, Any]) -> list[str]:
    found = curves_section([entry(str(place), history=LOG, config=config) for place, config in enumerate(configs)], Gallery())
    assert found is not None
    return [block.caption.partition("steps.")[2].strip() for block in found.blocks if isinstance(block, Picture)]


def test_curves_of_different_tasks_say_so() -> None:
    five = {"task": {"ways": 5, "shots": 1, "train_ways": None, "seed": 0}, "options": {"task": "glyphs"}}
    twenty = {**five, "task": {**five["task"], "train_ways": 20, "seed": 1}}
    assert captions(five, {**five, "task": {**five["task"], "train_ways": 5}}) == ["", ""]
    training = "The training tasks of these runs differ in `task.train_ways`, so the lines do not compare."
    assert captions(five, twenty) == ["", training]
    other = {**twenty, "task": {**twenty["task"], "ways": 10}}
    assert captions(twenty, other) == ["The validation tasks of these runs differ in `task.ways`, so the lines do not compare.", ""]
    assert all("differ in `task`, so" in caption for caption in captions(five, {**five, "options": {"task": "omniglot"}}))


def test_a_key_of_the_log_has_words() -> None:
    assert words("val/mse_median") == "validation median mse"
    assert words("train/gradient_norm") == "training gradient norm"


def test_inner_steps_have_means_and_in_regression_medians() -> None:
    by_step = {"by_step": [3.0, 0.5], "median_by_step": [2.0, 0.3], "steps": [0, 1]}
    assert pictures(steps_section([regression(**by_step)], Gallery())) == ["steps", "steps_median"]
    assert pictures(steps_section([entry(by_step=[0.2, 0.9], steps=[0, 1])], Gallery())) == ["steps"]
    assert steps_section([entry(by_step=[0.9], steps=[0])], Gallery()) is None
    assert steps_section([entry(by_step=[0.2, None], steps="x")], Gallery()) is None


def test_the_accuracy_by_presentation_is_drawn() -> None:
    found = [entry(by_presentation=[0.2, 0.8, 0.9], by_presentation_ci95=[0.01, 0.01, 0.01])]
    assert pictures(presentations_section(found, Gallery())) == ["presentations"]
    assert presentations_section([entry()], Gallery()) is None


def test_a_name_with_signs_of_mathematics_is_drawn_as_it_is() -> None:
    key, metric = r"train/a$\frac$", r"$\sum_$"
    found = curves_section([entry(history=[{"step": step, key: 1.0 * step} for step in range(3)])], Gallery(), key)
    assert pictures(found) == [f"curve_{key.replace('/', '_')}"]
    assert pictures(steps_section([entry(metric=metric, by_step=[1.0, 2.0], steps=[0, 1])], Gallery())) == ["steps"]
