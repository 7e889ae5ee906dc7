"""The traits of an algorithm, and its optional members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from metarun.types import OPTIONAL_MEMBERS, Traits, WithStream, adapts_backbone, traits_of


@dataclass(frozen=True)
class Tuning:
    """Adapts the backbone where its field says so."""

    tune_all: bool
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone="tune_all")


def test_traits_are_those_that_a_class_declares_or_the_defaults():
    assert not traits_of(Tuning).head
    assert traits_of(Tuning(True)) is Tuning.traits
    assert traits_of(object()) == Traits()
    assert traits_of(dict).head


def test_a_field_may_decide_whether_the_backbone_adapts():
    assert [adapts_backbone(Tuning(answer)) for answer in (True, False)] == [True, False]
    assert adapts_backbone(object())


class Online:
    """Learns from a stream."""

    def start(self, params: Any, state: Any, outputs: int, key: Any) -> Any: ...

    def features(self, params: Any, state: Any, x: Any) -> Any: ...

    def learn(self, adapted: Any, features: Any, y: Any, key: Any) -> Any: ...

    def answer(self, adapted: Any, features: Any) -> Any: ...


def test_an_algorithm_learns_from_a_stream_if_it_has_all_four_methods():
    assert WithStream in OPTIONAL_MEMBERS
    assert isinstance(Online(), WithStream)
    assert not isinstance(type("Partial", (), {name: getattr(Online, name) for name in ("start", "features", "learn")})(), WithStream)
