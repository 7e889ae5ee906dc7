"""Short runs that several tests of the commands read and leave as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import composed
from small_runs import SHORT, SINUSOID, image_config

from metarun.commands.train import train


@pytest.fixture(scope="session")
def maml_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MAML on small images, 3 ways, trained for four steps."""
    folder = tmp_path_factory.mktemp("maml") / "run"
    config = image_config("algo=maml", "algo.inner_steps=2")
    config["options"] = {"algo": "maml", "task": "small", "backbone": "small", "device": "cpu"}
    train(config, folder)
    return folder


@pytest.fixture(scope="session")
def sinusoid_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MAML on sinusoids, trained for four steps."""
    folder = tmp_path_factory.mktemp("sinusoid") / "run"
    train(composed(*SHORT, *SINUSOID, "algo.inner_lr=0.01"), folder)
    return folder


@pytest.fixture(scope="session")
def keeping_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six validations, of which the run keeps the three best."""
    folder = tmp_path_factory.mktemp("keeping") / "run"
    train(image_config("algo=maml", "algo.inner_steps=1", "keep=3", "steps=6", "eval_every=1", "save_every=4"), folder)
    return folder
