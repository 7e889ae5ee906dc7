"""Short runs that several tests of the commands read and leave as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from small import composed
from small_runs import CONV, SHORT, SINUSOID, image_config

from metarun import draws
from metarun.commands import abstaining
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
def ratings_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MeLU on 30 made users and 40 made items, trained for four steps."""
    folder = tmp_path_factory.mktemp("ratings") / "run"
    sizes = ("task.made_users=30", "task.made_items=40", "task.queries=3", "backbone.dimension=4", "backbone.widths=[8]")
    train(composed(*SHORT, "algo=melu", "task=ratings", "backbone=embeddings", *sizes), folder)
    return folder


@pytest.fixture(scope="session")
def keeping_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six validations, of which the run keeps the three best."""
    folder = tmp_path_factory.mktemp("keeping") / "run"
    train(image_config("algo=maml", "algo.inner_steps=1", "keep=3", "steps=6", "eval_every=1", "save_every=4"), folder)
    return folder


@pytest.fixture(scope="session")
def picture_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ProtoNet on a folder of pictures of 12 classes, run/ beside photos/; its calibrations are stored as those of a longer run."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        (root / "photos" / f"class{number:02}").mkdir(parents=True)
        pattern = draws.uniform(draws.key(1, "pattern", number), 8, 8, 3)
        for picture in range(6):
            noise = draws.uniform(draws.fold(draws.key(1, "noise", number), picture), 8, 8, 3)
            values = (255 * (0.5 * pattern + 0.5 * noise)).round().to(torch.uint8)
            Image.fromarray(values.numpy()).save(root / "photos" / f"class{number:02}" / f"{picture}.png")
    sizes = ["task.ways=3", "task.train_ways=3", "task.shots=2", "task.queries=2", "task.train_queries=2", "task.image_size=8"]
    split = ["task.split=[5,4,3]", f"task.root={root / 'photos'}"]
    config = {**composed(*SHORT, "algo=protonet", "task=folder", *sizes, *split), "backbone": {**CONV, "channels": 3}}
    config["options"] = {"algo": "protonet", "task": "folder", "backbone": "small", "device": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(root / "cache"))
        patch.setattr(abstaining, "LEAST_STEPS", 1)
        train(config, root / "run")
    return root / "run"


@pytest.fixture(scope="session")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MAML on a table of 10 tasks, y = 100 + 10 (slope x + 5 [word is b]); run/ beside table.csv."""
    root = tmp_path_factory.mktemp("table")
    rows = [f"t{task},{x},{'ab'[x % 2]},{100 + 10 * ((1 + task % 3) * x + 5 * (x % 2))}" for task in range(10) for x in range(8)]
    (root / "table.csv").write_text("\n".join(["city,x,word,y", *rows]) + "\n")
    words = [f"task.path={root / 'table.csv'}", "task.task_column=city", "task.target=y", "task.categorical=[word]"]
    config = composed(*SHORT, "algo=maml", "task=table", "backbone=mlp", "backbone.widths=[8]", *words, "task.shots=4", "task.queries=3")
    config["options"] = {"algo": "maml", "task": "table", "backbone": "mlp", "device": "cpu"}
    train(config, root / "run")
    return root / "run"
