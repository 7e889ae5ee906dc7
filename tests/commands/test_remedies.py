"""The hint after a training that is not finite: it names only keys that the run's config has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small import composed

from metarun.commands import remedies
from metarun.commands.train import train
from metarun.errors import UserError

SINUSOID = ("task=sinusoid", "backbone=mlp")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("algo=protonet",), " Lower optimizer.lr, or set optimizer.clip_norm."),
        (("algo=maml",), " Lower algo.inner_lr or optimizer.lr, or set optimizer.clip_norm."),
        (("algo=maml", "optimizer.clip_norm=1.0"), " Lower algo.inner_lr or optimizer.lr or optimizer.clip_norm."),
        (("algo=gbml",), " Lower algo.update.lr or optimizer.lr, or set optimizer.clip_norm."),
        (("algo=metaprior", *SINUSOID), " Lower algo.inner_lr or algo.std_lr or optimizer.lr, or set optimizer.clip_norm."),
        (("algo=memory", *SINUSOID), " Lower optimizer.lr, or set optimizer.clip_norm."),
    ],
)
def test_the_hint_names_the_keys_of_the_run(overrides: tuple[str, ...], sentence: str) -> None:
    assert remedies.for_not_finite(composed(*overrides)) == sentence


def test_the_hint_names_the_rates_of_a_users_own_algorithm_and_optimizer() -> None:
    own = {"algo": {"_target_": "mine.Mine", "outer_lr": 0.1, "learn_lr": True, "final_lr": None}, "optimizer": {"_target_": "mine.Sgd"}}
    assert remedies.for_not_finite(own) == " Lower algo.outer_lr."
    assert remedies.for_not_finite({"algo": {"_target_": "mine.Mine"}, "optimizer": {"_target_": "mine.Sgd"}}) == ""
    assert remedies.for_not_finite({"algo": {}, "optimizer": {"clip_norm": None}}) == " Set optimizer.clip_norm."


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            (*SINUSOID, "algo.inner_lr=1e9"),
            r"not finite .*is kept\. Change algo\.inner_lr=1e\+09, which is far from usual values\.$",
        ),
        (
            ("algo=protonet", "backbone.filters=2", "backbone.norm=none", "optimizer.lr=1e9"),
            r"not finite.*is kept\. Change optimizer\.lr=1e\+09, which is far from usual values\.$",
        ),
    ],
)
def test_a_training_that_is_not_finite_ends_with_the_hint(tmp_path: Path, overrides: tuple[str, ...], words: str) -> None:
    short = ("steps=4", "tasks_per_step=2", "eval_every=0", "eval_episodes=2", "logger=jsonl", "device=cpu", "device.threads=1")
    config: dict[str, Any] = composed(*short, *overrides)
    with pytest.raises(UserError, match=words):
        train(config, tmp_path / "run")


def test_a_number_far_from_usual_ones_is_the_likely_cause_whatever_its_key() -> None:
    """A network of weights near 1e9 is not finite at any learning rate."""
    config = composed("algo=matching", *SINUSOID, "backbone.init_std=1e9", "algo.temperature=1e-20")
    assert remedies.for_not_finite(config) == " Change algo.temperature=1e-20 or backbone.init_std=1e+09, which is far from usual values."
    assert remedies.extreme_values(composed("algo=metaprior")) == [], "an inner_lr of 500 is the default"


def test_the_hint_names_an_inner_rate_that_the_algorithm_chooses():
    assert remedies.inner_rates({"algo": {"inner_lr": None, "final_lr": None}}) == ["algo.inner_lr"]
