"""The keys around a backbone, which its class does not take."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from metarun.errors import UserError
from metarun.wiring.around import Around, divided


class WithMean(nn.Module):
    def __init__(self, mean: float = 0.0, frozen: bool = True) -> None:
        super().__init__()


def test_keys_of_the_class_and_keys_around_it_are_told_apart() -> None:
    node = {"_target_": "metarun.backbones.mlp.Mlp", "widths": [4], "norm": "none", "frozen": True, "mean": [0.5], "license": "mit"}
    rest, around = divided(node)
    assert rest == {"_target_": "metarun.backbones.mlp.Mlp", "widths": [4]}
    assert around == Around(norm="none", frozen=True, mean=[0.5], license="mit")


def test_a_class_with_an_argument_of_such_a_name_gets_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarun.backbones.mlp.WithMean", WithMean, raising=False)
    rest, around = divided({"_target_": "metarun.backbones.mlp.WithMean", "mean": 3.0, "frozen": False, "std": [2.0]})
    assert rest == {"_target_": "metarun.backbones.mlp.WithMean", "mean": 3.0, "frozen": False}
    assert around == Around(std=[2.0])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("frozen", "yes", "should be true or false"),
        ("std", [0.0], "a number above 0"),
        ("mean", [], "a list of at least 1 entry"),
        ("norm", "group", "one of batch, support"),
        ("pretrained_on", " ", "text that is not empty"),
    ],
)
def test_a_wrong_value_is_refused_by_name(key: str, value: Any, words: str) -> None:
    with pytest.raises(UserError, match=rf"^backbone\.{key}=.*{words}"):
        divided({"_target_": "metarun.backbones.mlp.Mlp", key: value})
