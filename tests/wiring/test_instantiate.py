"""From config nodes to objects, and the sentences for what does not fit."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from metarun.errors import UserError
from metarun.wiring.instantiate import instantiate


@dataclass(frozen=True)
class Sample:
    network: Any = None
    inner_lr: float = 0.1
    inner_steps: int = 1
    first_order: bool = False
    inner_loss: Literal["mean", "sum_over_shot"] = "mean"
    widths: tuple[int, ...] = (40, 40)
    limit: int | None = None
    root: Path | str | None = None
    options: dict[str, Any] | None = None


def needs(size: int, label: str = "x") -> tuple[int, str]:
    return size, label


def grumpy(size: int) -> None:
    if size < 0:
        raise UserError(f"task.size={size} is negative; set it to at least 0.")
    raise KeyError("a bug")


def here(name: str) -> str:
    return f"{__name__}.{name}"


def refusal(node: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        instantiate(node, name="algo", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_node_is_a_constructor_call() -> None:
    assert instantiate({"_target_": here("Sample"), "inner_lr": 0.5}, network="net") == Sample("net", 0.5)


def test_the_node_is_left_as_it_was() -> None:
    node = {"_target_": here("Sample"), "options": {"a": [1]}}
    instantiate(node)
    assert node == {"_target_": here("Sample"), "options": {"a": [1]}}


def test_nodes_inside_dictionaries_and_lists_are_built_first() -> None:
    inner = {"_target_": here("needs"), "size": 3}
    built = instantiate({"_target_": here("Sample"), "options": {"list": [inner, 1], "deep": {"node": inner}}})
    assert built.options == {"list": [(3, "x"), 1], "deep": {"node": (3, "x")}}


def test_nothing_is_interpolated() -> None:
    assert instantiate({"_target_": here("needs"), "size": 1, "label": "${oc.env:HOME}"}) == (1, "${oc.env:HOME}")


def test_values_are_fitted_to_the_annotations_of_the_target() -> None:
    built = instantiate({"_target_": here("Sample"), "inner_steps": 1e4, "widths": [1, 2]})
    assert (built.inner_steps, type(built.inner_steps), built.widths) == (10000, int, (1, 2))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"inner_lr": "abc"}, "algo.inner_lr='abc' should be a number."),
        ({"inner_lrr": 0.1}, "algo.inner_lrr is not an argument of"),
        ({"inner_lrr": 0.1}, "Did you mean 'inner_lr'?"),
        ({"options": {"node": {"_target_": here("needs"), "size": "x"}}}, "algo.options.node.size='x' should be a whole number."),
    ],
)
def test_a_value_that_does_not_fit_is_one_sentence(given: dict[str, Any], words: str) -> None:
    assert words in refusal({"_target_": here("Sample"), **given})


def test_an_argument_of_ours_is_not_offered_as_the_nearest_name() -> None:
    assert "Did you mean" not in refusal({"_target_": here("Sample"), "networ": 1}, network="net")


def test_a_missing_argument_is_named() -> None:
    assert refusal({"_target_": here("needs")}) == f"algo.size is missing; {here('needs')} needs it."


def test_a_target_that_does_not_take_what_metarun_passes_is_told_so() -> None:
    assert "does not take the argument 'network'" in refusal({"_target_": here("needs"), "size": 1}, network=1)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("metarun.engine.optimizer.OuterOptimiser", "Did you mean 'OuterOptimizer'?"),
        ("metarun.optimiser.OuterOptimizer", "the module 'metarun' has no 'optimiser'"),
        ("nowhere_at_all.Thing", "there is no module 'nowhere_at_all'"),
        ("metarun..x", "is not a dotted path"),
        ("", "is not a dotted path"),
        (3, "is not a dotted path"),
        ("metarun.errors", "is a module, which cannot be called"),
    ],
)
def test_a_target_that_is_not_there_is_one_sentence(target: Any, words: str) -> None:
    assert words in refusal({"_target_": target})


def test_a_node_without_a_target_is_one_sentence() -> None:
    assert "has no _target_" in refusal({"inner_lr": 1})


def test_a_user_error_of_the_target_passes_and_a_bug_keeps_its_traceback() -> None:
    assert refusal({"_target_": here("grumpy"), "size": -1}) == "task.size=-1 is negative; set it to at least 0."
    with pytest.raises(KeyError, match="a bug"):
        instantiate({"_target_": here("grumpy"), "size": 1})


def test_annotations_that_cannot_be_resolved_are_not_checked() -> None:
    def odd(size: NotImportedAtRunTime) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return size

    globals()["odd"] = odd
    assert instantiate({"_target_": here("odd"), "size": "abc"}) == "abc"


def test_a_module_of_the_current_folder_is_imported_only_where_a_target_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_parts_here.py").write_text("import own_sibling_here\n\n\ndef make(size):\n    return own_sibling_here.double(size)\n")
    (tmp_path / "own_sibling_here.py").write_text("def double(size):\n    return 2 * size\n")
    assert "no module 'nowhere_at_all'" in refusal({"_target_": "nowhere_at_all.Thing"})
    instantiate({"_target_": here("needs"), "size": 1})
    assert str(tmp_path) not in sys.path
    assert instantiate({"_target_": "own_parts_here.make", "size": 2}) == 4
    assert sys.path[-1] == str(tmp_path), "after all other folders, so that no library is shadowed"
