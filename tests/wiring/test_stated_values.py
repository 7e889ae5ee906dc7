"""An experiment names each value in which it differs from its paper.

`tests/data/stated_values.yaml` holds what papers and their released code state. `reproduce.differences` of an experiment maps each key
that differs to a sentence. A key without a sentence fails here, and so does a sentence for a key that does not differ. An algorithm's file
says in which defaults it differs.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from small import composed
from torch import nn

from metarun.commands.overrides import leaves
from metarun.wiring.instantiate import instantiate, locate

ROOT = Path(__file__).parents[2]
TABLE: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "tests/data/stated_values.yaml").read_text(encoding="utf-8"))
STATED = {name: values for name, values in TABLE.items() if not name.startswith("algo/")}
ALGORITHMS = {name.removeprefix("algo/"): values for name, values in TABLE.items() if name.startswith("algo/")}
EXPERIMENTS = sorted(file.stem for file in (ROOT / "configs/experiment").glob("*.yaml"))
WORDS = {"source"}
"""Keys of an entry that state no value."""

FREE = {"note"}
"""Keys of `differences` for a sentence that is about no single value."""


def network_facts(config: dict[str, Any]) -> dict[str, Any]:
    """Return the facts about a conv4 that no key expresses, read off its modules."""
    node = {key: value for key, value in config["backbone"].items() if key not in ("norm", "head_init")}
    backbone = instantiate({**node, "input_shape": [1, 28, 28]}, name="backbone")
    modules = list(backbone.modules())
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    strided = [module for module in modules if isinstance(module, nn.Conv2d) and module.stride == (2, 2)]
    [activation] = {type(module) for module in modules if isinstance(module, nn.ReLU | nn.LeakyReLU | nn.Tanh)}
    facts = {
        "norm_scale": any(norm.weight is not None for norm in norms),
        "activation": {nn.ReLU: "relu", nn.LeakyReLU: "leaky relu", nn.Tanh: "tanh"}[activation],
        "features": backbone.out_features,
    }
    # `padding` pads both edges of a side by its value; TensorFlow's SAME pads an even side of stride 2 and size 3 by one in all.
    return facts | ({"stride_padding": "both edges"} if strided and all(conv.padding == (1, 1) for conv in strided) else {})


def values_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return every value of a config by its dotted key, with the facts about its network."""
    known = dict(leaves({key: value for key, value in config.items() if key != "reproduce"}))
    known |= dict(leaves({"reproduce": {"eval": (config["reproduce"] or {}).get("eval", {})}}))
    return known | (network_facts(config) if "conv4" in config["backbone"]["_target_"] else {})


def differing(stated: dict[str, Any], ours: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return key -> (our value, stated value) of all that differ. A KeyError means a stated key that the config lacks."""
    pairs = {}
    for key, value in stated.items():
        if key not in WORDS:
            pairs[key] = (value["ours"], value["stated"]) if isinstance(value, dict) else (ours[key], value)
    return {key: pair for key, pair in pairs.items() if not same(*pair)}


def same(ours: Any, stated: Any) -> bool:
    """Return whether two values are equal; numbers to rounding, and a number is no bool."""
    if is_number(ours) and is_number(stated):
        return math.isclose(ours, stated)
    return type(ours) is type(stated) and bool(ours == stated)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers_in(sentence: str) -> list[float]:
    """Return the numbers in a sentence: "7,200 steps at 2e-3" gives 7200 and 0.002."""
    return [float(word.replace(",", "")) for word in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", sentence)]


def complaints(stated: dict[str, Any], ours: dict[str, Any], sentences: dict[str, str | None]) -> list[str]:
    """Return what is wrong with the sentences about the differences: one missing, one too many, or one with another number."""
    expected, named = differing(stated, ours), {key: text for key, text in sentences.items() if text and key not in FREE}
    found = [f"{key} is {expected[key][0]} and the paper has {expected[key][1]}: name it" for key in expected if key not in named]
    found += [f"{key} does not differ from what the paper states: omit its sentence" for key in named if key not in expected]
    for key in expected.keys() & named.keys():
        unsaid = [value for value in expected[key] if is_number(value) and not any(same(value, said) for said in numbers_in(named[key]))]
        found += [f"{key}: the sentence '{named[key]}' does not say {value}" for value in unsaid]
    return sorted(found)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_with_a_published_score_has_its_papers_values_in_the_table(name: str) -> None:
    claim = composed(f"experiment={name}")["reproduce"] or {}
    assert name in STATED or claim.get("published") is None, f"write what the paper of {name} states into tests/data/stated_values.yaml"


@pytest.mark.parametrize("name", sorted(STATED))
def test_an_experiment_names_each_difference_from_its_paper_and_no_other(name: str) -> None:
    config = composed(f"experiment={name}")
    assert complaints(STATED[name], values_of(config), config["reproduce"].get("differences") or {}) == []


PAPER = {"source": "a paper", "optimizer.lr": 1e-3, "steps": 60000, "order": {"ours": "random", "stated": "sorted"}}
OURS = {"optimizer.lr": 2e-3, "steps": 60000, "seed": 0}
GOOD = {"optimizer.lr": "2e-3, where the paper has 1e-3", "order": "random, where the paper's is sorted", "note": "free"}


@pytest.mark.parametrize(
    ("ours", "sentences", "complaint"),
    [
        ({}, {}, None),
        ({}, {"optimizer.lr": None}, "optimizer.lr is 0.002 and the paper has 0.001: name it"),
        ({"optimizer.lr": 1e-3}, {}, "optimizer.lr does not differ from what the paper states: omit its sentence"),
        ({"optimizer.lr": 5e-3}, {}, "optimizer.lr: the sentence '2e-3, where the paper has 1e-3' does not say 0.005"),
        ({"steps": 7200}, {}, "steps is 7200 and the paper has 60000: name it"),
        ({"steps": 7200}, {"steps": "7,200 steps"}, "steps: the sentence '7,200 steps' does not say 60000"),
        ({}, {"seed": "0, where the paper has 1"}, "seed does not differ from what the paper states: omit its sentence"),
        ({}, {"order": ""}, "order is random and the paper has sorted: name it"),
    ],
)
def test_a_difference_without_its_sentence_and_a_stale_sentence_are_found(
    ours: dict[str, Any], sentences: dict[str, Any], complaint: str | None
) -> None:
    assert complaints(PAPER, {**OURS, **ours}, {**GOOD, **sentences}) == ([] if complaint is None else [complaint])


def test_a_stated_key_that_the_config_lacks_is_found() -> None:
    with pytest.raises(KeyError, match="stpes"):
        complaints({"stpes": 1}, OURS, {})


def test_an_override_of_a_shipped_experiment_is_found() -> None:
    """As a later change of the file would be: MAML at another outer rate, and with the head of the released code."""
    config = composed("experiment=omniglot_5w1s_maml", "optimizer.lr=3e-3", "backbone.norm_eps=1e-3", "backbone.pooling=max")
    found = complaints(STATED["omniglot_5w1s_maml"], {"stride_padding": None, **values_of(config)}, config["reproduce"]["differences"])
    assert [complaint.split(":")[0].split(" ")[0] for complaint in found] == ["backbone.norm_eps", "backbone.pooling", "optimizer.lr"]


def description(option: str, config: dict[str, Any]) -> str:
    """Return the comments of an algorithm's YAML file and the docstrings of its module and class."""
    comments = re.findall(r"#(.*)", (ROOT / f"configs/algo/{option}.yaml").read_text(encoding="utf-8"))
    kind = locate(config["algo"]["_target_"])
    return " ".join([*comments, sys.modules[kind.__module__].__doc__ or "", kind.__doc__ or ""])


def says(text: str, key: str, stated: Any) -> bool:
    """Return whether a text gives a stated value: the number itself, or for a word the word or the name of its key."""
    if is_number(stated):
        return any(same(stated, number) for number in numbers_in(text)) or f"{key.split('.')[-1]}={stated}" in text
    return str(stated).lower() in text.lower() or key.split(".")[-1] in text


@pytest.mark.parametrize("option", sorted(ALGORITHMS))
def test_an_algorithms_file_gives_each_stated_value_that_its_defaults_do_not_have(option: str) -> None:
    config = composed(f"algo={option}", "task=omniglot", "backbone=conv4")
    text = description(option, config)
    silent = {key: pair for key, pair in differing(ALGORITHMS[option], values_of(config)).items() if not says(text, key, pair[1])}
    assert silent == {}, f"the header of configs/algo/{option}.yaml, or its module, should say what the paper has"
