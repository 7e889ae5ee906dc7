"""Estimates of memory from the sizes of the parts."""

from __future__ import annotations

import dataclasses

import pytest
from small import algorithm_of, composed, few_shot

from metarun.compute import memory
from metarun.errors import UserError
from metarun.wiring.build import build, build_settings
from metarun.wiring.estimates import check_copies, check_step


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_memory", lambda: 1e6)


def test_the_episodes_of_a_step_must_fit() -> None:
    """15 images of 64 float32 pixels and 15 x 3 labels: 15 * (64 + 3) * 4 = 4,020 bytes an episode."""
    shown = few_shot().episode("train", 0)
    check_step(shown, 248)
    with pytest.raises(UserError, match=r"a step of tasks_per_step=249 episodes needs about 1 MB of memory"):
        check_step(shown, 249)


def test_the_networks_of_all_inner_steps_and_of_all_samples_must_fit() -> None:
    for option, key in (("maml", "test_inner_steps"), ("pmaml", "samples"), ("metaprior", "train_samples")):
        algorithm = algorithm_of(option)
        check_copies(algorithm)
        with pytest.raises(UserError, match=rf"algo\.{key}=9000, each a network of \d+ parameters, needs about"):
            check_copies(dataclasses.replace(algorithm, **{key: 9000}))


def test_the_parameters_with_gradient_and_moments_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four copies of 4 bytes a number."""
    algorithm = algorithm_of("maml")
    size = sum(parameter.numel() for parameter in algorithm.network.module.parameters())  # type: ignore[attr-defined]
    monkeypatch.setattr(memory, "usable_memory", lambda: 16.0 * size)
    check_copies(algorithm)
    monkeypatch.setattr(memory, "usable_memory", lambda: 16.0 * size - 1)
    with pytest.raises(UserError, match=rf"the training of {size} parameters needs about .* kB of memory"):
        check_copies(algorithm)


def test_a_run_is_refused_before_its_first_step_where_its_episodes_do_not_fit() -> None:
    parts = build(composed("task=sinusoid", "backbone=mlp", "tasks_per_step=100000"))
    with pytest.raises(UserError, match="lower tasks_per_step"):
        build_settings(parts)


@pytest.mark.parametrize("words", [["task.shots=100000"], ["task.queries=20000"], ["task=regression", "task.inputs=10000"]])
def test_points_that_do_not_fit_are_refused_before_they_are_drawn(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"an episode of .* needs about .* MB of memory, and this machine has 1 MB; lower task\."):
        build(composed("task=sinusoid", "backbone=mlp", *words))


def test_images_that_do_not_fit_are_refused_with_their_number() -> None:
    with pytest.raises(UserError, match=r"an episode of 9 ways, 5 shots and 5 queries, 90 images, needs about 1.47 MB of memory"):
        few_shot(side=64, ways=9, shots=5, queries=5)
