"""A misspelt optional member of a user's algorithm is refused with the nearest name; helper methods are not."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from small import composed

from metarun.errors import UserError
from metarun.types import Traits
from metarun.wiring.build import build
from metarun.wiring.members import OPTIONAL, REQUIRED, TRAITS, check_members


class Complete:
    """An algorithm with all required members and none of the optional ones."""

    def __init__(self, objective: Any) -> None:
        self.objective = objective

    def init(self, key: Any) -> Any: ...

    def adapt(self, params: Any, state: Any, support: Any, key: Any, *, training: bool = False) -> Any: ...

    def predict(self, adapted: Any, x: Any, mask: Any = None) -> Any: ...

    def loss(self, params: Any, state: Any, episode: Any, key: Any, step: Any) -> Any: ...

    def update_state(self, state: Any, aux: Any) -> Any: ...


def with_member(name: str, member: Any) -> type:
    return type("Mine", (Complete,), {name: member})


def three(self: Any, a: Any, b: Any, c: Any = None) -> Any: ...


def four(self: Any, a: Any, b: Any, c: Any, d: Any) -> Any: ...


def test_the_names_are_those_of_the_protocols():
    assert OPTIONAL == {
        "trajectory": 4,
        "sampled": 3,
        "distribution": 3,
        "by_presentation": 4,
        "choose": 3,
        "start": 4,
        "features": 3,
        "learn": 4,
        "answer": 2,
        "adapt_in_place": 4,
    }
    assert set(REQUIRED) == {"init", "adapt", "predict", "loss", "update_state"}
    assert "head" in TRAITS


@pytest.mark.parametrize(
    ("name", "member", "meant"),
    [
        ("trajectry", four, "trajectory"),
        ("trajectorie", four, "trajectory"),
        ("Trajectory", four, "trajectory"),
        ("sampeld", three, "sampled"),
        ("samples", three, "sampled"),
        ("distributon", three, "distribution"),
        ("distributions", three, "distribution"),
        ("by_presentaton", four, "by_presentation"),
        ("by_presentations", four, "by_presentation"),
        ("chose", three, "choose"),
        ("chooose", three, "choose"),
        ("trait", Traits(head=False), "traits"),
        ("triats", Traits(), "traits"),
        ("properties", Traits(), "traits"),
        ("trait", {"head": False}, "traits"),
    ],
)
def test_a_misspelt_optional_member_is_refused_with_the_nearest_name(name: str, member: Any, meant: str):
    with pytest.raises(UserError, match=f"Mine has a member `{name}`, which metarun does not know. Did you mean '{meant}'"):
        check_members(with_member(name, member))


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("trajectories", four),
        ("trajectory_of", four),
        ("sample", lambda self, key: None),
        ("samples", lambda self, params, state, key, count: None),
        ("resample", three),
        ("choices", three),
        ("chosen", three),
        ("train", three),
        ("presentation", four),
        ("path", four),
        ("head", lambda self, z: None),
        ("inner", property(lambda self: None)),
        ("_trajectry", four),
        ("LIMIT", 3),
    ],
)
def test_helpers_of_any_other_name_are_allowed(name: str, member: Any):
    check_members(with_member(name, member))


def test_a_name_close_to_a_member_that_the_class_has_is_a_helper():
    check_members(type("Mine", (Complete,), {"sampled": three, "samples": three, "traits": Traits(), "trait": "blue"}))


@pytest.mark.parametrize("name", ["head", "sequential", "adapts_backbone", "training_only", "objectives"])
def test_a_trait_as_a_class_variable_is_refused_with_the_form_of_today(name: str):
    with pytest.raises(UserError, match=rf"metarun reads `{name}` from the traits .*Traits\({name}=…\)"):
        check_members(with_member(name, False))
    with pytest.raises(UserError, match=rf"Traits\({name}=…\)"):
        check_members(with_member(name, property(lambda self: False)))


def test_a_missing_member_is_named_with_the_nearest_that_is_there():
    kind = type("Mine", (), {name: getattr(Complete, name) for name in REQUIRED if name != "predict"} | {"predct": three})
    with pytest.raises(UserError, match=r"Mine has no method `predict`, which every algorithm needs\. Did you mean 'predct'"):
        check_members(kind)


def test_traits_of_another_type_and_an_optional_name_for_a_number_are_refused():
    with pytest.raises(UserError, match=r"`traits` must be a metarun\.types\.Traits"):
        check_members(with_member("traits", {"head": False}))
    with pytest.raises(UserError, match="`sampled` is the name of an optional method"):
        check_members(with_member("sampled", 20))


class Misspelt(Complete):
    """An algorithm with a misspelt optional member."""

    traits: ClassVar[Traits] = Traits()

    def trajectry(self, params: Any, state: Any, support: Any, key: Any) -> Any: ...


def misspelt(objective: Any) -> Misspelt:
    return Misspelt(objective)


@pytest.mark.parametrize("target", ["Misspelt", "misspelt"])
def test_the_build_refuses_a_class_and_a_function_that_returns_one(target: str, monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "mine_misspelt", sys.modules[__name__])
    config = composed("task=sinusoid", "backbone=mlp", "device.threads=1")
    with pytest.raises(UserError, match=r"Misspelt has a member `trajectry`.*Did you mean 'trajectory'"):
        build({**config, "algo": {"_target_": f"mine_misspelt.{target}"}})


STREAM = {"start": four, "features": three, "learn": four, "answer": lambda self, adapted, features: None}


def test_an_algorithm_with_a_stream_has_all_four_methods():
    check_members(type("Mine", (Complete,), STREAM))
    for name in STREAM:
        others = {other: member for other, member in STREAM.items() if other != name}
        with pytest.raises(UserError, match=f"Mine has no method `{name}`; an algorithm that learns from a stream has all of start, "):
            check_members(type("Mine", (Complete,), others))


def test_a_misspelt_method_of_a_stream_is_refused_with_the_nearest_name():
    others = {name: member for name, member in STREAM.items() if name != "features"}
    with pytest.raises(UserError, match=r"a member `featurs`, which metarun does not know. Did you mean 'features'"):
        check_members(type("Mine", (Complete,), others | {"featurs": three}))


def test_an_algorithm_without_a_stream_may_use_its_common_words():
    check_members(type("Mine", (Complete,), {"features": 64, "start": 0.5}))
    check_members(type("Mine", (Complete,), {"feature": three, "answers": three, "learner": four}))
