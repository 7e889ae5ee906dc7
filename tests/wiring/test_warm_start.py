"""`init_from`: a run that starts from another run's parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import composed

from metarun.commands.train import train
from metarun.errors import UserError
from metarun.records import checkpoint
from metarun.wiring.build import build, build_settings, start

SHORT = ("steps=2", "tasks_per_step=2", "eval_every=0", "eval_episodes=1", "save_every=0", "logger=jsonl", "device=cpu", "device.threads=1")
SINUSOID = ("task=sinusoid", "backbone=mlp", "backbone.widths=[4]", "task.queries=5", "algo.inner_lr=0.01")


def config(*overrides: str) -> dict[str, Any]:
    return composed(*SHORT, *SINUSOID, *overrides)


@pytest.fixture(scope="module")
def maml_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maml") / "run"
    train(config("algo=maml"), folder)
    return folder


def test_platipus_starts_from_the_weights_of_a_maml_run_and_has_its_own_beside_them(maml_run: Path):
    parts = build({**config("algo=pmaml", "seed=5"), "init_from": str(maml_run)})
    position, _ = start(parts, build_settings(parts))
    stored = checkpoint.load(maml_run / "checkpoints/best.pt").params
    fresh = parts.algorithm.init(torch.tensor(0))[0]
    assert set(stored) < set(position.params)
    for name, value in position.params.items():
        assert torch.equal(value, stored.get(name, fresh[name])), name


def test_running_statistics_come_along(tmp_path: Path):
    images = {"task": {"_target_": "small.small_images"}, "backbone": {"_target_": "small.SmallConv", "norm": "running"}}
    first = composed(*SHORT, "algo=maml") | images
    train(first, tmp_path / "run")
    parts = build(composed(*SHORT, "algo=pmaml") | images | {"init_from": str(tmp_path / "run/checkpoints/last.pt")})
    position, _ = start(parts, build_settings(parts))
    stored = checkpoint.load(tmp_path / "run/checkpoints/last.pt").state
    assert stored.keys() == position.state.keys()
    assert all(torch.equal(stored[name], value) for name, value in position.state.items())


@pytest.mark.parametrize(("first", "then"), [("protonet", "maml"), ("maml", "protonet")])
def test_a_backbone_with_a_head_starts_from_one_without_and_the_other_way_round(first: str, then: str, tmp_path: Path):
    images = {"task": {"_target_": "small.small_images"}, "backbone": {"_target_": "small.SmallConv", "norm": "running"}}
    train(composed(*SHORT, f"algo={first}") | images, tmp_path / "run")
    parts = build(composed(*SHORT, f"algo={then}", "seed=5") | images | {"init_from": str(tmp_path / "run/checkpoints/last.pt")})
    position, _ = start(parts, build_settings(parts))
    stored = checkpoint.load(tmp_path / "run/checkpoints/last.pt")
    for now, before in ((position.params, stored.params), (position.state, stored.state)):
        backbones = [{name.replace("body.", ""): v for name, v in part.items() if not name.startswith("head.")} for part in (now, before)]
        assert backbones[0].keys() == backbones[1].keys()
        assert all(torch.equal(value, backbones[1][name]) for name, value in backbones[0].items())


def test_a_resumed_run_goes_on_from_its_own_checkpoint(maml_run: Path, tmp_path: Path):
    whole = {**config("algo=pmaml"), "init_from": str(maml_run)}
    train(whole, tmp_path / "whole")
    train({**whole, "steps": 1}, tmp_path / "half")
    train({"resume": str(tmp_path / "half"), "overrides": {"steps": 2}, "groups": {}}, tmp_path / "half")
    ends = [checkpoint.load(tmp_path / name / "checkpoints/last.pt").params for name in ("whole", "half")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_run_that_does_not_fit_is_told_in_a_sentence(maml_run: Path):
    wider = build(
        {**config("algo=pmaml"), "backbone": {"_target_": "metarun.backbones.mlp.Mlp", "input_shape": None, "widths": [5]}}
        | {"init_from": str(maml_run)}
    )
    with pytest.raises(UserError, match=r"its 'body.* has shape \(4, 1\) and here it has \(5, 1\)"):
        start(wider, build_settings(wider))
    other = composed(*SHORT, "algo=maml") | {"task": {"_target_": "small.small_images"}, "backbone": {"_target_": "small.SmallConv"}}
    other["algo"] = {"_target_": "metarun.algorithms.protonet.ProtoNet"}
    parts = build(other | {"init_from": str(maml_run)})
    with pytest.raises(UserError, match="that run shares no parameter name with this one"):
        start(parts, build_settings(parts))
    missing = build({**config("algo=pmaml"), "init_from": "nowhere"})
    with pytest.raises(UserError, match="there is no checkpoint or run folder 'nowhere'"):
        start(missing, build_settings(missing))
