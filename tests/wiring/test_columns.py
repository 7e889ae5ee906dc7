from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small import composed
from small_ratings import COLUMNS, Tastes

from metarun import testing
from metarun.errors import UserError
from metarun.tasks.sinusoid import Sinusoids
from metarun.types import TaskSource
from metarun.wiring.build import build
from metarun.wiring.columns import fill_columns

PLAIN = [list(column) for column in COLUMNS]


@dataclass(frozen=True)
class Other(Tastes):
    """Users whose items are others."""

    shown: Any = ()

    def columns(self) -> Any:
        return self.shown


def filled(columns: Any, source: TaskSource) -> Any:
    config = {"backbone": {"_target_": "mine.Net", "columns": columns}, "task": {"_target_": "mine.Users"}}
    fill_columns(config, source)
    return config["backbone"]["columns"]


def test_the_columns_of_the_task_reach_the_network_and_the_config():
    config = composed("algo=melu", "backbone=embeddings", "device.threads=1")
    config["task"] = {"_target_": "small_ratings.Tastes"}
    parts = build(config)
    assert parts.config["backbone"]["columns"] == PLAIN
    assert config["backbone"]["columns"] is None
    assert tuple(parts.algorithm.network.module.body.embeddings.table.shape) == (16, 32)


def test_stated_columns_that_are_those_of_the_task_stay():
    assert filled(COLUMNS, Tastes()) == COLUMNS


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (COLUMNS[1:], "the task has no column 'gender'"),
        ((*COLUMNS[:3], ("item", "category", 12, "item")), "'item' has 9 entries in the network and 12 in the task"),
        ((*COLUMNS, ("zip", "category", 2, "user")), "the network has no column 'zip'"),
        (COLUMNS[::-1], "their order differs"),
    ],
)
def test_other_columns_than_the_network_embeds_are_refused(found: Any, sentence: str):
    with pytest.raises(UserError, match=sentence):
        filled(PLAIN, Other(shown=found))


def test_a_task_that_does_not_say_what_its_columns_mean_is_refused():
    with pytest.raises(UserError, match=r"does not say which of its columns are categories; choose task=ratings"):
        build(composed("task=sinusoid", "backbone=embeddings"))


def test_a_trained_network_of_columns_is_refused_on_a_task_of_metarun_without_columns():
    """Also where the inputs have the same size, as those of a sinusoid and of ratings whose only column is the item."""
    stated = "backbone.columns=[[item,category,9,item]]"
    with pytest.raises(
        UserError, match=r"embeds the columns item \(backbone\.columns\), and metarun.* does not say .*; choose task=ratings"
    ):
        build(composed("task=sinusoid", "backbone=embeddings", stated), scored="test")


def test_a_user_may_state_the_columns_of_a_source_that_does_not_say_them():
    assert filled(PLAIN, Sinusoids()) == PLAIN


def test_a_backbone_without_the_key_stays_as_it_is():
    config = {"backbone": {"_target_": "mine.Net"}}
    fill_columns(config, Tastes())
    assert config == {"backbone": {"_target_": "mine.Net"}}


def test_a_backbone_that_would_read_categories_as_quantities_is_refused():
    config = composed("algo=maml", "backbone=mlp", "device.threads=1")
    config["task"] = {"_target_": "small_ratings.Tastes"}
    with pytest.raises(UserError, match=r"the categories gender, item, and backbone metarun\.backbones\.mlp\.Mlp would read their numbers"):
        build(config)
    with pytest.raises(UserError, match=r"and backbone=mlp would read their numbers"):
        build({**config, "options": {"backbone": "mlp"}})


@pytest.mark.parametrize("name", ["cnp", "tnp"])
def test_an_algorithm_with_networks_of_its_own_reads_the_embeddings(name: str):
    config = composed(f"algo={name}", "backbone=embeddings", "backbone.widths=[6]", "device.threads=1")
    config["task"] = {"_target_": "small_ratings.Tastes"}
    algorithm = build(config).algorithm
    assert algorithm.inputs == 6
    testing.check_algorithm(algorithm, Tastes())
    batch, keys = testing.first_episodes(Tastes(), 2)
    gradients = testing.gradients_of(algorithm, *testing.start(algorithm), batch, keys, torch.tensor(0))[0]
    assert float(gradients["inputs.embeddings.table"].abs().max()) > 0
