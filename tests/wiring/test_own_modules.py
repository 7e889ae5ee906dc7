"""Users' modules compute under metarun what plain torch computes with them, in training and evaluation, or are refused before step 1."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import own_modules
import pytest
import torch
from own_modules import EQUAL, LOOPED, NEEDS_FIRST_ORDER, REFUSED
from small import composed, few_shot
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarun import draws
from metarun.backbones.classifier import Classifier
from metarun.compute.programs.recording import Recorded
from metarun.engine.evaluation import TaskScores
from metarun.engine.training import TaskGradients, gradients_of
from metarun.episodes import deal
from metarun.errors import UserError
from metarun.functional import prototypes, squared_distances, without_map
from metarun.testing import double
from metarun.types import Episode
from metarun.wiring.build import Parts, build

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
ALGORITHMS = ("protonet", "maml", "fomaml")
INNER_LR = 0.1
SOURCE = few_shot(ways=2, shots=2, queries=1)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """torch traces and old parametrizations with warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def built(module: own_modules.Module, algorithm: str, **backbone: Any) -> Parts:
    own_modules.CURRENT[:] = [module]
    config = composed(f"algo={algorithm}", "task=omniglot", "device=cpu", "device.threads=1")
    config["algo"] |= {"inner_lr": INNER_LR, "inner_steps": 1, "test_inner_steps": 1} if algorithm != "protonet" else {}
    config["task"] = {"_target_": "small.small_images", "ways": 2, "shots": 2, "queries": 1}
    return build({**config, "backbone": {"_target_": "own_modules.current", "norm": "batch", **backbone}})


def plain(module: own_modules.Module, algorithm: str) -> nn.Module:
    """Return the module as torch alone builds it from the same seed, in float64, with the names that metarun's network has."""
    torch.manual_seed(composed()["seed"])
    backbone: Any = module()
    if any(nn.parameter.is_lazy(value) for value in backbone.parameters()):
        backbone(torch.zeros(2, 1, 8, 8))
    whole = backbone if algorithm == "protonet" else Classifier(backbone, 2)
    for layer in whole.modules():  # spectral norm of the older form computes a plain attribute, which `double` does not reach
        for name, value in list(vars(layer).items()):
            if isinstance(value, Tensor):
                vars(layer)[name] = value.detach().double()
    return whole.double()


def torch_loss(module: nn.Module, learned: dict[str, Tensor], episode: Episode, algorithm: str) -> tuple[Tensor, Tensor]:
    """Return the loss of a training task and the accuracy of its evaluation, by torch alone and without a map."""
    fixed = {name: value.clone() for name, value in [*module.named_parameters(), *module.named_buffers()] if name not in learned}
    (x, y), (asked, wanted) = episode.support[:2], episode.query[:2]

    def call(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(module, {**fixed, **weights}, (x.clone(),))
        return out

    if algorithm == "protonet":
        z = call(learned, torch.cat([x, asked]))
        logits = -squared_distances(z[len(x) :], prototypes(z[: len(x)], y))
        at_test = -squared_distances(call(learned, asked), prototypes(call(learned, x), y))
    else:
        norms = [
            layer for layer in module.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm)
        ]
        held = {id(value) for layer in norms if layer.training for value in layer.parameters()}
        moving = [name for name, value in module.named_parameters() if name in learned and id(value) not in held]
        slopes = torch.autograd.grad(
            F.cross_entropy(call(learned, x), y), [learned[name] for name in moving], create_graph=algorithm == "maml", allow_unused=True
        )
        adapted = {name: learned[name] - INNER_LR * (0.0 if slope is None else slope) for name, slope in zip(moving, slopes, strict=True)}
        logits = at_test = call({**learned, **adapted}, asked)
    return F.cross_entropy(logits, wanted), (at_test.argmax(1) == wanted.argmax(1)).double().mean()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("module", EQUAL, ids=lambda module: module.__name__)
def test_an_own_module_computes_what_torch_computes(module: own_modules.Module, algorithm: str) -> None:
    parts = built(module, algorithm)
    assert parts.device.loop == (module in LOOPED or (module is own_modules.functional_layer_norm and algorithm == "maml"))
    params, state = double(parts.algorithm.init(draws.key(0)))
    batch, keys = double(deal(SOURCE, "train", torch.arange(2))), draws.key(0, torch.arange(2))
    with without_map(parts.device.loop):
        gradients, losses, _ = gradients_of(parts.algorithm, params, state, batch, keys, torch.tensor(0))
        with torch.no_grad():
            scores = TaskScores(parts.algorithm, "last")((params, state, None), (batch, keys))["by_step"][:, -1]

    expected = plain(module, algorithm)
    learned = {name: value.detach().requires_grad_() for name, value in expected.named_parameters() if value.requires_grad}
    assert list(params) == list(learned)
    with sdpa_kernel(SDPBackend.MATH):
        tasks = [Episode(*(part._replace(x=part.x[t], y=part.y[t]) for part in batch)) for t in range(2)]
        found = [torch_loss(expected, learned, episode, algorithm) for episode in tasks]
        slopes = torch.autograd.grad(found[0][0] + found[1][0], list(learned.values()), allow_unused=True)
    torch.testing.assert_close(losses, torch.stack([loss for loss, _ in found]), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(scores, torch.stack([score for _, score in found]))
    for name, slope in zip(learned, slopes, strict=True):
        torch.testing.assert_close(gradients[name], torch.zeros_like(params[name]) if slope is None else slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("algorithm", ["protonet", "maml"])
@pytest.mark.parametrize(("module", "sentence"), REFUSED, ids=[pattern for _, pattern in REFUSED])
def test_a_module_that_is_not_a_pure_function_of_its_tensors_is_refused(module: own_modules.Module, sentence: str, algorithm: str) -> None:
    with pytest.raises(UserError, match=sentence):
        built(module, algorithm)


@pytest.mark.parametrize(("module", "operation"), NEEDS_FIRST_ORDER, ids=[name for _, name in NEEDS_FIRST_ORDER])
def test_an_operation_without_a_second_derivative_is_refused_where_one_is_needed(module: own_modules.Module, operation: str) -> None:
    with pytest.raises(
        UserError, match=rf"training with Maml fails: the derivative for '{operation}' is not impl.*set algo\.first_order=true"
    ):
        built(module, "maml")
    for algorithm in ("protonet", "fomaml"):
        built(module, algorithm)


def test_a_function_that_torch_func_does_not_take_runs_in_a_loop_or_is_refused_with_its_layer() -> None:
    assert built(own_modules.old_function, "protonet").device.loop
    with pytest.raises(
        UserError, match=r"training with Maml fails in the layer 'body\.parts\.0' \(Call\): its autograd\.Function has no setup_context"
    ):
        built(own_modules.old_function, "maml")


@pytest.mark.parametrize(
    "module", [own_modules.Branches, own_modules.group_norm, own_modules.attention], ids=lambda module: module.__name__
)
def test_a_recorded_program_or_its_fallback_gives_the_same_bits(module: own_modules.Module) -> None:
    parts = built(module, "maml")
    params, state = parts.algorithm.init(draws.key(0))
    batch, keys = deal(SOURCE, "train", torch.arange(1)), draws.key(0, torch.arange(1))
    cases: list[tuple[Any, Any]] = [(TaskGradients(parts.algorithm), torch.tensor(0)), (TaskScores(parts.algorithm, "last"), None)]
    for function, last in cases:
        arguments = (params, state, last), (batch, keys)
        with torch.no_grad() if last is None else torch.enable_grad():
            program = Recorded(function).program(*arguments)
            assert program.concurrent == (module is not own_modules.Branches)
            torch.testing.assert_close(program.call(*arguments), function(*arguments), rtol=0, atol=0)
