"""From config nodes to objects, the sentences for what does not fit, and what a checkpoint's config may not name."""

from __future__ import annotations

import os
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from metarun.errors import UserError
from metarun.wiring.instantiate import check_targets, config_folder, instantiate, locate, shipped_targets


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
        ({"inner_lr": "abc"}, "algo.inner_lr='abc' should be a float."),
        ({"inner_lrr": 0.1}, "algo.inner_lrr is not an argument of"),
        ({"inner_lrr": 0.1}, "Did you mean 'inner_lr'?"),
        ({"options": {"node": {"_target_": here("needs"), "size": "x"}}}, "algo.options.node.size='x' should be an int."),
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


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's package that imports os, and marks that it was imported."""
    source = textwrap.dedent("""
        import functools, os
        from os import system as alias
        import mine_module_loaded
        def build(size): return size
        class Kind:
            def __init__(self, size): self.size = size
            @classmethod
            def of(cls, size): return cls(size)
        bound = functools.partial(os.system)
    """)
    (tmp_path / "mine_package").mkdir()
    (tmp_path / "mine_package" / "__init__.py").write_text(source)
    (tmp_path / "mine_package" / "sub.py").write_text("from mine_package import build as other\nclass Deep:\n    pass\n")
    (tmp_path / "mine_module_loaded.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield "mine_package"
    for name in ("mine_package", "mine_package.sub", "mine_module_loaded"):
        sys.modules.pop(name, None)


def was_imported() -> bool:
    return "mine_module_loaded" in sys.modules


@pytest.mark.parametrize("target", ["build", "Kind", "Kind.of", "sub.Deep", "sub.other"])
def test_a_trusted_package_may_name_what_it_defines(mine: str, target: str) -> None:
    check_targets({"algo": {"_target_": f"{mine}.{target}"}}, [mine])


@pytest.mark.parametrize("target", ["os.system", "os.mkdir", "alias", "functools.partial", "bound", "Kind.mro", "build.__globals__", "os"])
def test_a_trusted_package_may_not_lend_what_it_imported(mine: str, target: str) -> None:
    with pytest.raises(UserError, match=f"'{mine}.{target}', which is not defined in the trusted package"):
        check_targets({"algo": {"_target_": f"{mine}.{target}"}}, [mine])


def test_a_package_that_is_not_trusted_is_refused_with_the_remedy_and_not_imported(mine: str) -> None:
    with pytest.raises(UserError) as caught:
        check_targets({"algo": {"_target_": f"{mine}.build"}}, ["other"])
    assert f"'{mine}.build'" in str(caught.value)
    assert f"trust=[{mine}]" in str(caught.value)
    assert not was_imported()


def test_a_name_that_only_begins_like_a_trusted_one_is_refused(mine: str) -> None:
    with pytest.raises(UserError, match="trust="):
        check_targets({"_target_": f"{mine}.build"}, ["mine"])
    assert not was_imported()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "metarun.records.checkpoint.os.mkdir",
        "metarun.records.checkpoint.os.system",
        "metarun.engine.optimizer.OuterOptimizer ",
        "${oc.env:HOME}",
        "",
        None,
        3,
        ["os.system"],
        {"_target_": "os.system"},
    ],
)
@pytest.mark.parametrize("trust", [[], ["metarun"]])
def test_code_that_is_no_building_block_is_refused_wherever_it_stands(target: Any, trust: list[str]) -> None:
    hidden = {"a": [1, ({"b": [{"_target_": target}]},)]}
    with pytest.raises(UserError, match="nothing was run"):
        check_targets(hidden, trust)


@pytest.mark.parametrize(
    "target", ["metarun.records.checkpoint.save", "metarun.engine.optimizer.OuterOptimizer.update", "metarun.records.tracking.Tracker.log"]
)
def test_what_metarun_defines_is_refused_unless_a_shipped_config_names_it(target: str) -> None:
    with pytest.raises(UserError, match=f"'{target}', which is no building block"):
        check_targets({"_target_": target})


def test_instantiate_checks_a_config_from_a_file_before_it_builds_anything(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    node = {"_target_": "metarun.engine.optimizer.OuterOptimizer", "options": {"x": {"_target_": "os.mkdir", "path": str(folder)}}}
    assert "'os.mkdir'" in refusal(node, trust=[])
    assert not folder.exists()


def test_every_shipped_target_is_accepted_and_exists() -> None:
    assert "metarun.engine.optimizer.OuterOptimizer" in shipped_targets()
    for target in shipped_targets():
        check_targets({"_target_": target})
        assert callable(locate(target)), target


def test_the_shipped_configs_are_found_without_an_installation() -> None:
    assert config_folder().joinpath("optimizer", "adam.yaml").is_file()
    assert os.sep not in "".join(shipped_targets())
