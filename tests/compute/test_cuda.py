"""The same runs on a CUDA device; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import composed

from metarun.commands.train import train
from metarun.engine import training as engine
from metarun.engine.dealing import Dealer
from metarun.wiring.build import build, build_settings, start

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")

GLYPHS = ("task.samples=11", "task.queries=1", "task.train_queries=1", "backbone.filters=8", "tasks_per_step=4", "eval_episodes=4")


@pytest.mark.parametrize("algo", ["maml", "fomaml", "reptile", "protonet"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_run_trains_and_is_scored_on_the_device(tmp_path: Path, algo: str, precision: str):
    config = composed(f"algo={algo}", *GLYPHS, "device=cuda", f"device.precision={precision}", "steps=12", "logger=jsonl")
    assert 0.0 <= train(config, tmp_path / "run") <= 1.0


def test_its_gradients_are_those_of_the_processor():
    found = {}
    for device in ("cpu", "cuda"):
        parts = build(composed("algo=maml", *GLYPHS, f"device={device}", "device.task_chunk=4"))
        settings = build_settings(parts)
        position, _ = start(parts, settings)
        with Dealer(parts.source, "train", first_step=0, steps=1, tasks_per_step=4, seed=0, device=device) as dealer:
            batch, keys, _ = dealer.next()
        step = torch.zeros((), dtype=torch.int64, device=device)
        gradients, losses, _ = engine.gradients_of(parts.algorithm, position.params, position.state, batch, keys, step)
        found[device] = {name: value.cpu() for name, value in (gradients | {"loss": losses}).items()}
    for name, value in found["cpu"].items():
        torch.testing.assert_close(found["cuda"][name], value, rtol=1e-3, atol=1e-4)


def test_a_step_never_waits_for_the_device():
    """After the first ones, which record the step; torch itself raises where the host would wait."""
    parts = build(composed("algo=maml", *GLYPHS, "device=cuda"))
    settings = build_settings(parts)
    position, optimizer = start(parts, settings)
    with engine.Loop(parts.algorithm, parts.source, position, optimizer, settings) as loop:
        for number in range(6):
            if number == 3:
                torch.cuda.set_sync_debug_mode("error")
            loop.step()
        torch.cuda.set_sync_debug_mode("default")


def test_the_images_lie_on_the_device():
    parts = build(composed("algo=protonet", *GLYPHS, "device=cuda"))
    assert parts.source.episode("train", 0).support.x.is_cuda
