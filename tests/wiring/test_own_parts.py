"""A user's own algorithm, data source and backbone: one file and one YAML each, in a folder outside the project, used from the shell."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from metarun import testing
from metarun.backbones.classifier import Classifier
from metarun.network import Network
from metarun.objectives import CLASSIFICATION
from metarun.wiring.build import build

FILES = {
    "mine/algorithm.py": '''
        """Prototypes under a temperature that is learned with the network."""

        from dataclasses import dataclass
        from typing import Any, ClassVar

        import torch

        from metarun.functional import prototypes, squared_distances
        from metarun.types import Aux, Traits


        @dataclass(frozen=True)
        class Tempered:
            network: Any
            objective: Any
            temperature: float = 1.0
            traits: ClassVar[Traits] = Traits(head=False, objectives=("classification",))

            def init(self, key):
                params, state = self.network.init()
                return {**params, "log_temperature": torch.tensor(self.temperature).log()}, state

            def adapt(self, params, state, support, key, *, training=False):
                network = {name: value for name, value in params.items() if name != "log_temperature"}
                embeddings = self.network.on_support(network, state, support, training=training)
                fitted = self.network.fit(network, state, support, training=training)
                return prototypes(embeddings, support.y, support.mask), fitted, params["log_temperature"]

            def predict(self, adapted, x, mask=None):
                return self._logits(adapted, self.network.on_query(adapted[1], x, mask)[0])

            def loss(self, params, state, episode, key, step):
                adapted = self.adapt(params, state, episode.support, key, training=True)
                embeddings, statistics = self.network.on_query(adapted[1], episode.query.x, episode.query.mask, collect=True)
                logits = self._logits(adapted, embeddings)
                loss = self.objective.loss(logits, episode.query.y, episode.query.mask)
                return loss, Aux({"loss": loss.detach()}, statistics)

            def update_state(self, state, aux):
                return self.network.update_running(state, aux)

            def _logits(self, adapted, embeddings):
                centres, _, log_temperature = adapted
                return -squared_distances(embeddings, centres) / log_temperature.exp()
    ''',
    "mine/data.py": '''
        """Squares and stripes: each class is a frequency, each picture a phase."""

        from dataclasses import dataclass

        import torch

        from metarun import draws
        from metarun.types import Episode, Examples


        @dataclass(frozen=True)
        class Stripes:
            ways: int = 3
            shots: int = 2
            seed: int = 0
            objective: str = "classification"

            def episode(self, split, index):
                key = draws.key(self.seed, split, index)
                frequencies = 0.5 + 2.0 * draws.permutation(key, 9)[: self.ways] / 9
                return Episode(self._part(key, "support", frequencies, self.shots), self._part(key, "query", frequencies, 4))

            def _part(self, key, name, frequencies, count):
                phases = draws.uniform(draws.fold(key, name), self.ways * count, high=6.28)
                columns = torch.arange(8.0)
                rows = torch.sin(frequencies.repeat_interleave(count)[:, None] * columns + phases[:, None])
                x = rows[:, None, None, :].expand(-1, 1, 8, 8).contiguous()
                return Examples(x, torch.eye(self.ways).repeat_interleave(count, dim=0))
    ''',
    "mine/backbone.py": '''
        """A small convolutional network with torch's own batch norm."""

        from torch import nn


        class Small(nn.Module):
            def __init__(self, input_shape, filters=4):
                super().__init__()
                self.out_features = filters
                self.layers = nn.Sequential(
                    nn.Conv2d(input_shape[0], filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU(),
                    nn.Conv2d(filters, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU(),
                )

            def forward(self, x):
                return self.layers(x).mean(dim=(2, 3))
    ''',
    "conf/algo/mine.yaml": """
        # Tempered prototypes: prototypical networks with a learned temperature.
        _target_: mine.algorithm.Tempered
        temperature: 2.0
        recipe:
          norm: running
          tasks_per_step: 2
    """,
    "conf/task/mine.yaml": """
        # Stripes: pictures of sines, told apart by their frequency.
        _target_: mine.data.Stripes
        ways: 3
        shots: 2
        seed: ${seed}
    """,
    "conf/backbone/mine.yaml": """
        # Two convolutions with batch norm.
        _target_: mine.backbone.Small
        input_shape: null
        filters: 4
        norm: ${oc.select:algo.recipe.norm,batch}
    """,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's working folder: a package with three modules, and a config folder with three files."""
    folder = tmp_path_factory.mktemp("outside")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(content).lstrip())
    return folder


def metarun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a console script does: with -P, so that Python itself does not put the working folder on the path."""
    command = [sys.executable, "-P", "-c", "from metarun.cli.main import entry; entry()", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    done = metarun(
        folder,
        *("train", "--config-dir", "conf", "algo=mine", "task=mine", "backbone=mine", "logger=jsonl", "device.threads=1"),
        *("steps=3", "eval_episodes=3", "hydra.run.dir=run"),
    )
    assert done.returncode == 0, done.stderr
    assert "best validation accuracy" in done.stdout
    return folder / "run"


def test_all_three_train_together(trained: Path):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["step"] == 3
    assert lines[0]["train/loss"] > 0


def test_the_evaluation_needs_the_users_word_for_the_users_code(trained: Path, folder: Path):
    refused = metarun(folder, "eval", "checkpoint=run", "episodes=4")
    assert refused.returncode == 2
    assert "add trust=[mine]" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = metarun(folder, "eval", "checkpoint=run", "episodes=4", "trust=[mine]", "task.shots=3", "hydra.run.dir=scored")
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "scored/report.json").read_text())
    assert (report["episodes"], report["ways"], report["shots"], report["norm"]) == (4, 3, 3, "running")


def test_the_run_can_be_resumed(trained: Path, folder: Path):
    done = metarun(folder, "train", "resume=run", "trust=[mine]", "steps=5")
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line)["step"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 5
    assert steps == sorted(steps)


@pytest.fixture
def importable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))


def test_the_checks_of_metarun_testing_are_open_to_the_user(importable: None):
    algorithm, data, backbone = (importlib.import_module(f"mine.{name}") for name in ("algorithm", "data", "backbone"))
    source = data.Stripes()
    testing.check_source(source)
    testing.check_algorithm(algorithm.Tempered(Network(backbone.Small((1,)), "running"), CLASSIFICATION), source)


@pytest.mark.parametrize("norm", ["batch", "support", "reptile", "layer"])
def test_a_users_backbone_with_plain_batch_norm_suits_every_family(importable: None, norm: str):
    from small import algorithm_of

    backbone, source = importlib.import_module("mine.backbone"), importlib.import_module("mine.data").Stripes()
    for option in ("maml", "reptile", "protonet"):
        algorithm = algorithm_of(option)
        bare = backbone.Small((1,))
        network = Network(bare if option == "protonet" else Classifier(bare, 3), norm)
        testing.check_finite_gradients(type(algorithm)(network, CLASSIFICATION), source)


def test_own_parts_and_shipped_ones_mix(importable: None):
    from small import composed

    config = composed("algo=maml", "task=sinusoid", "backbone=conv4", "backbone.filters=2", "backbone.pooling=stride", "device.threads=1")
    config["task"] = {"_target_": "mine.data.Stripes", "ways": 3}
    assert build(config).shown.support.x.shape == (6, 1, 8, 8)
