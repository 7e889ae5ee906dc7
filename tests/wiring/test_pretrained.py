"""Modules with loaded weights: inputs, frozen layers, the width, and the classification layer that is still on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

import own_modules
import pytest
import torch
from small import few_shot
from torch import Tensor, nn

from metarun.errors import UserError
from metarun.tasks.sampling import FewShot
from metarun.wiring.around import Around
from metarun.wiring.backbones import Made, build_backbone, build_network, check_embedding
from metarun.wiring.pretrained import Inputs, completed, fit, give_width

X = torch.rand(4, 1, 8, 8)
NODE = {"_target_": "own_modules.untouched"}


class Net(nn.Module):
    """A convolution, a batch normalisation, dropout, and an optional last layer. loaded: the same weights from every seed."""

    def __init__(
        self, last: str = "fc", width: int = 6, *, channels: int = 3, loaded: bool = True, stated: bool = False, drop: float = 0.5
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 5, 3, stride=2)
        self.norm = nn.BatchNorm2d(5)
        self.drop = nn.Dropout(drop)
        self.last = last
        self.add_module(last, nn.Linear(5, width))
        if stated:
            self.out_features = width
        if loaded:
            with torch.no_grad():
                for number, value in enumerate(self.parameters()):
                    value.copy_(torch.linspace(-1, 1 + number, value.numel()).reshape(value.shape))
                self.norm.running_mean.fill_(0.3)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = getattr(self, self.last)(self.drop(self.norm(self.stem(x)).mean((2, 3))))
        return found


class Grey(Net):
    """A network of timm says these facts."""

    pretrained_cfg: ClassVar[dict[str, Any]] = {
        "mean": (0.5,),
        "std": (0.25,),
        "license": "mit",
        "tag": "x_in21k_ft_in1k",
        "input_size": (1, 8, 8),
    }

    def __init__(self) -> None:
        super().__init__(channels=1)


def made_of(build: Callable[[], nn.Module], seed: int = 0, x: Tensor = X, **around: Any) -> Made:
    own_modules.CURRENT[:] = [build]
    torch.manual_seed(seed)
    return build_backbone(NODE, Around(**around), x)


def episodes() -> dict[str, Any]:
    source: FewShot = few_shot(ways=2)
    return {split: source.episode(split, 0) for split in ("train", "val")}


def test_images_are_normalised_by_channel_and_grey_ones_repeated_before_the_module_sees_them() -> None:
    x = torch.rand(4, 1, 8, 8)
    inputs = Inputs(torch.tensor([0.1, 0.2, 0.3]).double(), torch.tensor([1.0, 2.0, 4.0]).double(), 3)
    (seen,) = inputs(nn.Identity(), (x,))
    for channel, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 4.0)]):
        torch.testing.assert_close(seen[:, channel], (x[:, 0] - mean) / std)
    plain, prepared = Net(), Net()
    fit(prepared, Around(frozen=True, mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0]), x, "Net")
    torch.testing.assert_close(prepared(x), plain.eval()(seen))


def test_one_mean_stands_for_all_channels_and_another_number_is_refused() -> None:
    one, three = Net(), Net()
    fit(one, Around(frozen=True, mean=[0.5]), X, "Net")
    fit(three, Around(frozen=True, mean=[0.5, 0.5, 0.5]), X, "Net")
    torch.testing.assert_close(one(X), three(X))
    with pytest.raises(UserError, match=r"backbone\.std=\[1\.0, 2\.0\] has 2 numbers, and the inputs have 3 channels\."):
        fit(Net(), Around(std=[1.0, 2.0]), X, "Net")


def test_a_function_that_returns_one_object_twice_gets_its_inputs_normalised_once() -> None:
    module = Net()
    first = made_of(lambda: module, frozen=True, mean=[0.5], without="fc").module(X)
    assert torch.equal(made_of(lambda: module, frozen=True, mean=[0.5], without="fc").module(X), first)
    assert not torch.equal(made_of(lambda: module, frozen=True).module(X), first)


def test_a_frozen_module_learns_nothing_keeps_its_statistics_and_drops_nothing_out() -> None:
    made = made_of(Net, frozen=True, without="fc")
    assert not any(value.requires_grad for value in made.module.parameters())
    assert torch.equal(made.module(X), made.module(X))
    assert made.module.norm.running_mean.tolist() == pytest.approx([0.3] * 5)  # type: ignore[union-attr,operator]


def test_the_width_is_found_by_a_pass_that_leaves_the_statistics_alone() -> None:
    module = Net(width=7, drop=0.0)
    before = {name: value.clone() for name, value in module.named_buffers()}
    give_width(module, torch.rand(4, 3, 8, 8))
    assert module.out_features == 7
    assert all(torch.equal(value, before[name]) for name, value in module.named_buffers())
    stated = Net(stated=True)
    stated.out_features = 99
    give_width(stated, torch.rand(4, 3, 8, 8))
    assert stated.out_features == 99, "a wrong width is refused later, not hidden"


def embedding_of(**options: Any) -> None:
    build = lambda: Net(drop=0.0, **options)  # noqa: E731
    check_embedding(made_of(build), made_of(build, seed=1), X, "Net")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"last": "classifier", "loaded": False},
        {"last": "projection"},
        {"last": "projection", "width": 1000, "stated": True, "loaded": False},
        {"last": "head", "stated": True},
    ],
    ids=["resnet", "a usual name", "loaded weights", "the labels of ImageNet", "a usual name with loaded weights"],
)
def test_a_classification_layer_that_is_still_on_is_refused(options: dict[str, Any]) -> None:
    last = options.get("last", "fc")
    with pytest.raises(UserError, match=rf"ends with the layer '{last}' of \d+ outputs.*backbone\.without={last} removes it"):
        embedding_of(**options)


@pytest.mark.parametrize(
    "options",
    [{"last": "projection", "loaded": False}, {"last": "fc", "loaded": False, "stated": True}, {"last": "projection", "stated": True}],
    ids=["a new layer", "a new layer of a usual name and a stated width", "a loaded layer of a stated width"],
)
def test_a_projection_is_no_classification_layer(options: dict[str, Any]) -> None:
    embedding_of(**options)


def test_the_layer_can_be_removed_or_kept() -> None:
    build = lambda: Net(drop=0.0)  # noqa: E731
    removed, kept = made_of(build, without="fc"), made_of(build, keep_classifier=True)
    for made, width in ((removed, 5), (kept, 6)):
        check_embedding(made, made, X, "Net")
        assert made.module.out_features == width
    with pytest.raises(UserError, match=r"backbone\.without=fd: backbone own_modules\.untouched has no layer 'fd'\. Did you mean 'fc'\?"):
        made_of(build, without=["fd"])


def test_a_convolution_as_the_classification_layer_is_found_behind_relu_and_pooling() -> None:
    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parts = nn.Conv2d(1, 1000, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            self.classifier = nn.Sequential(*parts)

        def forward(self, x: Tensor) -> Any:
            return self.classifier(x)

    made = made_of(Squeeze)
    with pytest.raises(UserError, match=r"ends with the layer 'classifier\.0' of 1000 outputs"):
        check_embedding(made, made, X, "Squeeze")


def test_timms_facts_fill_the_keys_that_are_null() -> None:
    around = completed(Around(), Grey(), pretrained=True)
    assert around == Around(mean=[0.5], std=[0.25], license="mit", pretrained_on="imagenet-21k, imagenet-1k")
    assert completed(Around(), Grey(), pretrained=False) == Around(mean=[0.5], std=[0.25]), "random weights have seen nothing"
    typed = Around(mean=[0.0], license="own", pretrained_on="mine")
    assert completed(typed, Grey(), pretrained=True) == typed


def test_the_facts_of_the_weights_are_written_into_the_config_of_the_run() -> None:
    own_modules.CURRENT[:] = [Grey]
    config = {"backbone": {**NODE, "frozen": True, "without": "fc", "mean": None, "license": None}, "task": {}, "seed": 0}
    network = build_network(config, episodes(), head=False, algorithm="Mine")
    assert config["backbone"]["mean"] == [0.5]
    assert config["backbone"]["license"] == "mit"
    assert "std" not in config["backbone"], "a key that the file does not have stays away"
    assert network.names == []
    params, state = network.init()
    assert params == {}
    assert set(state) >= {"frozen.stem.weight", "buffer.norm.running_mean"}


@pytest.mark.parametrize(("norm", "said"), [("batch", True), ("running", False)])
def test_statistics_of_loaded_weights_without_effect_are_mentioned(norm: str, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    own_modules.CURRENT[:] = [lambda: Net(drop=0.0)]
    with caplog.at_level(logging.WARNING):
        build_network({"backbone": {**NODE, "norm": norm, "without": "fc"}, "task": {}, "seed": 0}, episodes(), head=False, algorithm="M")
    assert ("does not use the running statistics" in caplog.text) is said
