"""The tables of other programs' words: each target exists, and no word is a key or an option itself."""

from __future__ import annotations

from metarun.wiring.option_files import content_of, keys_of, options, shipped, text_of
from metarun.wiring.suggestions import GROUPS
from metarun.wiring.synonyms import KEYS, OPTIONS, TIMM, TORCH, plain


def existing_keys() -> set[str]:
    own = {key for command in ("train", "eval", "predict") for key in content_of(text_of(command, [shipped()]) or "")}
    below = {f"{group.replace('/', '.')}.{key}" for group in GROUPS for name in options(group) for key in keys_of(f"{group}/{name}")}
    return own | below | {"hydra.run.dir", "experiment", *GROUPS}


def test_each_key_that_a_word_stands_for_exists() -> None:
    targets = {target for names in KEYS.values() for target in names}
    choices = {target for target in targets if "=" in target}
    assert targets - choices <= existing_keys()
    assert all(option in options(group) for group, _, option in (choice.partition("=") for choice in choices))


def test_each_option_that_a_word_stands_for_exists_and_the_word_is_none() -> None:
    for (group, word), names in OPTIONS.items():
        assert set(names) <= set(options(group)), (group, word)
        assert word not in options(group), (group, word)


def test_words_are_in_the_form_of_the_tables() -> None:
    assert all(word == plain(word) for word in [*KEYS, *(word for _, word in OPTIONS), *TORCH])
    assert plain("Meta-SGD ") == "meta_sgd"


def test_the_tables_stay_small() -> None:
    assert len({target for names in KEYS.values() for target in names}) <= 60
    assert len(KEYS) <= 400


def test_networks_of_timm_are_known_by_the_start_of_their_names() -> None:
    assert all(TIMM.match(name) for name in ("resnet18", "wide_resnet50_2", "vit_small", "convnext_tiny", "resnext50"))
    assert not any(TIMM.match(name) for name in ("resnet", "conv4", "mlp", "residual"))


def test_the_optimizers_of_torch_exist_there() -> None:
    import torch

    for option, name in TORCH.values():
        assert option in options("optimizer")
        assert hasattr(torch.optim, name)
