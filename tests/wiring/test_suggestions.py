"""What a user may have meant by a key or an option that does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.wiring.option_files import content_of, keys_of, options, shipped, text_of
from metarun.wiring.suggestions import did_you_mean, for_key, for_option


def known(command: str, **chosen: str) -> list[str]:
    own = [key for key in content_of(text_of(command, [shipped()]) or "") if key != "hydra"]
    return [*own, *chosen, *(f"{group}.{key}" for group, option in chosen.items() for key in keys_of(f"{group}/{option}"))]


TRAIN = known("train", algo="maml", task="glyphs", backbone="conv4", optimizer="adam", device="auto")
CHOSEN = {"algo": "maml", "task": "glyphs", "backbone": "conv4", "optimizer": "adam", "device": "auto"}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("algo.lr", " Did you mean 'algo.inner_lr' or 'optimizer.lr'?"),
        ("lr", " Did you mean 'optimizer.lr' or 'algo.inner_lr'?"),
        ("learning_rate", " Did you mean 'optimizer.lr' or 'algo.inner_lr'?"),
        ("optimizer.learning-rate", " Did you mean 'optimizer.lr' or 'algo.inner_lr'?"),
        ("epochs", " Did you mean 'steps'?"),
        ("trainer.max_epochs", " Did you mean 'steps'?"),
        ("iterations", " Did you mean 'steps'?"),
        ("batch_size", " Did you mean 'tasks_per_step'?"),
        ("n_way", " Did you mean 'task.ways'?"),
        ("k_shot", " Did you mean 'task.shots'?"),
        ("shots", " Did you mean 'task.shots'?"),
        ("gpu", " Did you mean 'device=cuda' or 'device.name'?"),
        ("device.gpu", " Did you mean 'device.name'?"),
        ("model", " Did you mean 'backbone'?"),
        ("dataset", " Did you mean 'task'?"),
        ("data", " Did you mean 'task'?"),
        ("log_dir", " Did you mean 'hydra.run.dir'?"),
        ("num_workers", " Did you mean 'device.threads'?"),
        ("episodes", " Did you mean 'eval_episodes'?"),
        ("checkpoint", " Did you mean 'init_from' or 'resume'?"),
        ("weight_decay", " Did you mean 'optimizer.options.weight_decay'?"),
        ("algo.norm", " Did you mean 'backbone.norm'?"),
        ("task.lr", " Did you mean 'optimizer.lr' or 'algo.inner_lr'?"),
        ("algo.fce", " It belongs to algo=matching; this run has algo=maml."),
        ("task.task_column", " It belongs to task=table; this run has task=glyphs."),
        ("fce", " 'algo.fce' belongs to algo=matching; this run has algo=maml."),
        ("backbone.widths", " It belongs to backbone=embeddings, mlp, resnet12; this run has backbone=conv4."),
        ("task.min_ratings", " It belongs to task=ratings; this run has task=glyphs."),
        ("optimizer.momentum", " 'optimizer.options.momentum' belongs to optimizer=sgd; this run has optimizer=adam."),
        ("algo.update.units", " It belongs to algo/update=lstm."),
        ("split", " It is a key of `metarun eval`."),
        ("abstain", " It is a key of `metarun predict`."),
        ("algo.inner_lrr", " Did you mean 'algo.inner_lr'?"),
        ("tsak.shots", " Did you mean 'task.shots'?"),
        ("sead", " Did you mean 'seed'?"),
        ("xyzzy", ""),
    ],
)
def test_a_key_that_does_not_exist_gets_the_right_answer(key: str, said: str) -> None:
    assert for_key(key, TRAIN, CHOSEN) == said


@pytest.mark.parametrize(
    ("command", "key", "said"),
    [
        ("eval", "steps", " It is a key of `metarun train`."),
        ("eval", "shots", " Did you mean 'task.shots'?"),
        ("eval", "num_episodes", " Did you mean 'episodes'?"),
        ("eval", "model", " Did you mean 'checkpoint' or 'backbone'?"),
        ("predict", "task.shots", " `metarun predict` takes 'task.shots' from the run."),
        ("predict", "output", " Did you mean 'out'?"),
    ],
)
def test_the_answer_depends_on_the_command(command: str, key: str, said: str) -> None:
    chosen = {"eval": {"device": "auto", "algo": "", "task": "", "backbone": ""}, "predict": {"device": "auto"}}[command]
    answer = for_key(key, known(command, **chosen))
    assert answer.replace("'hydra.run.dir' or ", "").replace(" or 'hydra.run.dir'", "") == said


def test_a_long_list_of_owners_is_cut() -> None:
    assert for_key("task.channels", TRAIN, {}) == " It belongs to task=cifar_fs, cub, fc100 and 4 more."


def test_a_key_of_a_users_own_option_is_found(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo/mine.yaml").write_text("slow_weights: 1\n")
    assert for_key("algo.slow_weights", TRAIN, CHOSEN, [tmp_path]) == " It belongs to algo=mine; this run has algo=maml."


@pytest.mark.parametrize(
    ("group", "option", "said"),
    [
        ("algo", "prototypical", " Did you mean 'protonet'?"),
        ("algo", "MAML", " Did you mean 'maml'?"),
        ("algo", "MAML++", " Did you mean 'mamlpp'?"),
        ("algo", "meta-sgd", " Did you mean 'metasgd'?"),
        ("algo", "mamll", " Did you mean 'maml'?"),
        ("task", "cifar", " Did you mean 'cifar_fs' or 'fc100'?"),
        ("task", "MiniImageNet", " Did you mean 'mini_imagenet'?"),
        ("task", "omni", " Did you mean 'omniglot'?"),
        ("backbone", "resnet18", " Did you mean 'backbone=timm backbone.name=resnet18' or 'backbone=resnet12'?"),
        ("backbone", "vit_small", " Did you mean 'backbone=timm backbone.name=vit_small'?"),
        ("backbone", "cnn", " Did you mean 'conv4'?"),
        ("device", "gpu", " Did you mean 'cuda'?"),
        ("device", "cuda:1", " Did you mean 'device=cuda device.name=cuda:1'?"),
        ("optimizer", "RMSprop", " Did you mean 'optimizer=sgd optimizer.name=RMSprop'?"),
        ("optimizer", "AdamW", " Did you mean 'adamw'?"),
        ("algo/update", "meta_sgd", " Did you mean 'metasgd'?"),
        ("algo", "xyzzy", ""),
    ],
)
def test_an_option_that_does_not_exist_gets_the_right_answer(group: str, option: str, said: str) -> None:
    assert for_option(group, option, options(group)) == said


@pytest.mark.parametrize(
    ("names", "said"),
    [([], ""), (["a"], " Did you mean 'a'?"), (["a", "b"], " Did you mean 'a' or 'b'?"), (list("abcd"), " Did you mean 'a', 'b' or 'c'?")],
)
def test_at_most_three_names_are_suggested(names: list[str], said: str) -> None:
    assert did_you_mean(names) == said
