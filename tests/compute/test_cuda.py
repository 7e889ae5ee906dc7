"""The same runs on a CUDA device; skipped where there is none. `scripts/gpu_check` runs this file and compares every algorithm besides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small import composed
from small_runs import evaluate
from torch import Tensor

import metarun
from metarun import draws
from metarun.commands.train import train
from metarun.compute.memory import allocating
from metarun.engine import training as engine
from metarun.engine.dealing import Dealer
from metarun.engine.optimizer import OuterOptimizer
from metarun.errors import UserError
from metarun.records import checkpoint
from metarun.testing import assert_same
from metarun.wiring.build import build, build_settings, start

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")

GLYPHS = ("task.samples=11", "task.queries=1", "task.train_queries=1", "backbone.filters=8", "tasks_per_step=4", "eval_episodes=4")
SHORT = (*GLYPHS, "logger=jsonl", "eval_every=0", "save_every=0")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Put back the settings of the process that a run changes."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.cuda.set_sync_debug_mode("default")
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def short(*overrides: str) -> dict[str, Any]:
    return composed("algo=maml", *SHORT, *overrides)


def params_of(folder: Path) -> dict[str, Tensor]:
    return checkpoint.load(folder / "checkpoints" / checkpoint.LAST).params


def near(a: dict[str, Tensor], b: dict[str, Tensor], share: float) -> None:
    """Compare whole weights by their norms: an entry near 0 may have another sign after a few steps of Adam."""
    assert a.keys() == b.keys()
    first, second = (torch.cat([tensors[name].flatten() for name in a]) for tensors in (a, b))
    assert float((first - second).norm() / second.norm()) <= share


def resume(folder: Path, steps: int, device: str) -> None:
    train({"resume": str(folder), "overrides": {"steps": steps, "device.name": device}, "groups": {}}, folder)


@pytest.mark.parametrize("algo", ["maml", "reptile", "protonet", "finetune"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_run_trains_and_is_scored_on_the_device(tmp_path: Path, algo: str, precision: str):
    config = composed(f"algo={algo}", *SHORT, "device=cuda", f"device.precision={precision}", "steps=12")
    assert 0.0 <= train(config, tmp_path / "run") <= 1.0


@pytest.mark.parametrize("task", ["task=glyphs", "task=sinusoid"])
def test_a_run_with_pictures_and_a_chosen_inner_step_is_drawn_and_scored(tmp_path: Path, task: str):
    backbone = () if task == "task=glyphs" else ("backbone=mlp",)
    sizes = GLYPHS if task == "task=glyphs" else ("tasks_per_step=4", "eval_episodes=4")
    train(composed("algo=maml", task, *backbone, *sizes, "device=cuda", "steps=4", "logger=tensorboard", "select=mean@1"), tmp_path / "run")
    assert (tmp_path / "run/report.json").exists()


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


@pytest.mark.parametrize("words", [("device.task_chunk=1",), ("device.task_chunk=3",), ("device.compile=true",)])
@pytest.mark.filterwarnings("ignore")  # of the compiler, which recommends TF32
def test_a_chunk_and_the_compiler_change_the_weights_by_rounding_only(tmp_path: Path, words: tuple[str, ...]):
    for name, extra in (("plain", ()), ("other", words)):
        train(short("device=cuda", "steps=4", "optimizer=sgd", "optimizer.lr=0.01", *extra), tmp_path / name)
    near(params_of(tmp_path / "other"), params_of(tmp_path / "plain"), 1e-3)


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_rounds_the_arguments_of_products_to_eleven_bits_and_nothing_else(tf32: bool):
    """A rounded argument differs by 2^-11 of itself at most, so a product of two by 2^-10 + 2^-22; a float32 sum of n terms adds n 2^-23.

    This is the whole effect. There is no useful bound on the weights after some steps: MAML's gradient passes normalisations and maxima
    that enlarge it. With arguments rounded so on a CPU, four steps move the weights to another place by half of their way.
    """
    from metarun.layers.conv import Geometry, conv2d

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    x, w = (draws.normal(draws.key(0, name), *shape) for name, shape in (("x", (8, 16, 10, 10)), ("w", (32, 16, 3, 3))))
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1)
    a, b = x.flatten(1), draws.normal(draws.key(0, "b"), 1600, 32)
    largest = 0.0
    for product, first, second, terms in ((lambda p, q: conv2d(p, q, None, geometry), x, w, 144), (torch.matmul, a, b, 1600)):
        exact, sizes = (product(*each) for each in ((first.double(), second.double()), (first.double().abs(), second.double().abs())))
        apart = (product(first.cuda(), second.cuda()).cpu().double() - exact).abs()
        bound = (2.0**-10 + 2.0**-22 if tf32 else 0.0) + terms * 2.0**-23
        assert (apart <= bound * sizes).all()
        largest = max(largest, float((apart / sizes).max()))
    if tf32 and torch.cuda.get_device_capability() >= (8, 0):
        assert largest > 2.0**-20  # else it was not on


def test_products_are_taken_in_bfloat16_in_the_derivatives_too():
    """torch takes derivatives on a thread of its own where nothing forbids it, and there in float16."""
    from metarun.compute.plan import Plan
    from metarun.compute.running import Runner

    def product(shared: Tensor, chunk: Tensor) -> Tensor:
        leaf = shared.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((chunk @ leaf).sum() * 1e6, leaf)
        return gradient

    w, x = torch.full((4, 3), 2.0, device="cuda"), torch.full((8, 4), 3.0, device="cuda")
    for runs in (1, 100):
        with Runner(Plan(8, autocast="cuda")) as runner:
            (gradient,) = runner.map(product, w, [x], runs=runs)
        torch.testing.assert_close(gradient, torch.full_like(w, 2.4e7), rtol=1e-2, atol=0.0)  # 1e6 exceeds float16


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_normalisation_and_its_gradients_are_those_of_the_processor(dtype: torch.dtype, layout: torch.memory_format, scaled: bool):
    from metarun.layers.normalise import Normalise

    kept = torch.float64 if dtype is torch.float64 else torch.float32
    found = []
    for device in ("cpu", "cuda"):
        x = 3.0 + draws.normal(draws.key(0, "x"), 6, 4, 5, 5).to(device, dtype).contiguous(memory_format=layout).requires_grad_()
        vectors = [torch.linspace(0.5, end, 4, dtype=kept, device=device).requires_grad_() for end in (2.0, 1.0)] if scaled else []
        out, mean, inverse = Normalise.apply(x, *(vectors or [None, None]), 1e-5)
        assert (out.dtype, mean.dtype, inverse.dtype) == (dtype, kept, kept)
        gradients = torch.autograd.grad(out.double().pow(3).sum(), [x, *vectors])
        found.append([value.double().cpu() for value in (out, mean, inverse, *gradients)])
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1}[dtype]
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=tolerance, atol=tolerance * float(here.abs().max()))


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


def test_the_images_lie_on_the_device_and_are_those_of_the_processor():
    parts = build(composed("algo=protonet", *GLYPHS, "device=cuda"))
    on_cpu = build(composed("algo=protonet", *GLYPHS, "device=cpu"))
    for split in ("train", "val"):
        episode = parts.source.episode(split, 3)
        assert episode.support.x.is_cuda
        assert episode.query.y.is_cuda
        assert_same(
            tuple(part.x.cpu() for part in episode), tuple(part.x for part in on_cpu.source.episode(split, 3)), split, tolerance=0.0
        )


def test_draws_on_the_device_equal_those_of_the_processor():
    key, size = draws.key(5, "train", torch.arange(3)), torch.tensor([9, 10, 11])
    there, large = key.cuda(), size.cuda()
    for a, b in (
        (draws.bits(there, 7), draws.bits(key, 7)),
        (draws.uniform(there, 7), draws.uniform(key, 7)),
        (draws.integers(there, 7, size=5), draws.integers(key, 7, size=5)),
        (draws.permutation(there, 7), draws.permutation(key, 7)),
        (draws.distinct(there, 4, large), draws.distinct(key, 4, size)),
        (draws.fold(there, "name"), draws.fold(key, "name")),
    ):
        assert torch.equal(a.cpu(), b)
    for draw in (draws.normal, draws.noise):
        torch.testing.assert_close(draw(there, 50).cpu(), draw(key, 50), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("first", "second"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_and_is_scored_on_the_other_device(tmp_path: Path, first: str, second: str):
    for name, steps in (("stopped", 3), ("whole", 6)):
        train(short(f"device={first}", f"steps={steps}", "optimizer=adam"), tmp_path / name)
    reports = [evaluate(tmp_path / "stopped", tmp_path / device, device={"name": device}, trust=[]) for device in (first, second)]
    assert reports[0]["nll"] == pytest.approx(reports[1]["nll"], rel=1e-3)
    resume(tmp_path / "stopped", 6, second)
    assert checkpoint.load(tmp_path / "stopped/checkpoints/last.pt").step == 6
    near(params_of(tmp_path / "stopped"), params_of(tmp_path / "whole"), 2e-2)


def test_a_resumed_run_equals_one_that_never_stopped_up_to_the_order_of_sums(tmp_path: Path):
    train(short("device=cuda", "steps=8"), tmp_path / "whole")
    train(short("device=cuda", "steps=4"), tmp_path / "stopped")
    resume(tmp_path / "stopped", 8, "cuda")
    near(params_of(tmp_path / "stopped"), params_of(tmp_path / "whole"), 1e-2)


def test_a_model_that_is_loaded_on_the_device_predicts_as_on_the_processor(tmp_path: Path):
    train(short("device=cuda", "steps=3"), tmp_path / "run")
    episode = build(composed("algo=maml", *GLYPHS, "device=cpu")).source.episode("test", 0)
    labels = episode.support.y.argmax(dim=1).tolist()
    found = []
    for device in ("cuda", "cpu"):
        model = metarun.load(str(tmp_path / "run"), device=device)
        found.append(torch.from_numpy(model.adapt(episode.support.x, labels).predict_proba(episode.query.x)))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adagrad", "RMSprop"])
def test_an_optimizer_steps_and_goes_on_as_on_the_processor(name: str):
    ends = []
    for device in ("cpu", "cuda"):
        weight = torch.arange(6.0).reshape(2, 3).to(device).requires_grad_()
        gradient = {"w": torch.ones(2, 3, device=device)}
        first = OuterOptimizer({"w": weight}, 4, name=name, lr=0.1)
        first.update(gradient, 0)
        second = OuterOptimizer({"w": weight}, 4, name=name, lr=0.1)
        second.load_state_dict(first.state_dict())
        second.update(gradient, 1)
        ends.append(weight.detach().cpu())
    torch.testing.assert_close(*ends)


def test_too_little_memory_of_the_device_is_a_sentence():
    total = torch.cuda.get_device_properties(0).total_memory
    refused = pytest.raises(UserError, match=r"a step needs another .* of the .*GiB of the GPU .* is free; lower task\.shots\.")
    with refused, allocating("a step", "lower task.shots"):
        torch.empty(2 * total, dtype=torch.uint8, device="cuda")
