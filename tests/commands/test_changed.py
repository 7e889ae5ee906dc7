from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small import composed

from metarun.commands.changed import build_again, check_statistics, remedy
from metarun.errors import UserError
from metarun.records.checkpoint import Checkpoint
from metarun.tasks.fingerprint import fingerprint_of
from metarun.tasks.preparing.preparation import preparation_by
from metarun.wiring.build import build, build_source


def pictures(folder: Path) -> dict[str, Any]:
    for label in range(6):
        (folder / f"class {label}").mkdir(parents=True)
        for number in range(3):
            Image.new("L", (16, 16), 40 * label + number).save(folder / f"class {label}" / f"{number}.png")
    small = ("task.image_size=16", "task.split=[2,2,2]", "task.ways=2", "task.train_ways=2", "task.queries=1", "task.train_queries=1")
    config = composed("task=folder", f"task.root='{folder}'", *small, "algo=protonet", "device=cpu", "backbone.filters=4")
    return build(config).config


def rows(folder: Path) -> dict[str, Any]:
    table = folder / "table.csv"
    table.parent.mkdir(parents=True)
    table.write_text("\n".join(["site,x,y", *(f"s{site},{row + site},{row * site}" for site in range(9) for row in range(6))]))
    named = ("task.task_column=site", "task.target=y", "task.shots=2", "task.queries=2")
    return build(composed("task=table", f"task.path='{table}'", *named, "algo=maml", "backbone=mlp", "device=cpu")).config


def stored(config: dict[str, Any]) -> Checkpoint:
    return Checkpoint(0, {}, {}, config=config, data=fingerprint_of(build_source({**config, "task": dict(config["task"])})))


def test_a_failure_on_changed_pictures_says_what_changed_and_how_to_name_the_old_ones(tmp_path: Path):
    before = stored(pictures(tmp_path / "photos"))
    assert build_again(before.config, before).config == before.config
    for file in (tmp_path / "photos/class 1").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"training data have changed: 3 images removed; .*task.root=PLACE"):
        build_again(before.config, before)


def test_a_failure_on_a_changed_table_says_so(tmp_path: Path):
    before = stored(rows(tmp_path / "tables"))
    (tmp_path / "tables/table.csv").write_text("site,x,y\ns1,2,3\n")
    with pytest.raises(UserError, match=r"The training data have changed: the values of the table differ; .*task.path=PLACE"):
        build_again(before.config, before)


@pytest.mark.parametrize("make", [pictures, rows])
def test_a_failure_for_another_reason_keeps_its_sentence(tmp_path: Path, make: Callable[[Path], dict[str, Any]]):
    before = stored(make(tmp_path / "data"))
    with pytest.raises(UserError) as caught:
        build_again({**before.config, "task": {**before.config["task"], "shots": 50}}, before)
    assert "not those of the training" not in str(caught.value)


def test_a_task_without_files_has_no_place_to_name():
    assert remedy({"task": {"root": None, "shots": 3}}) == ""
    sources = {"a": {"shots": 1}, "b": {"root": "DIR"}}
    assert remedy({"task": {"sources": sources}}) == "; if the old data are elsewhere, give task.sources.b.root=PLACE"


MADE = ("task=ratings", "task.made_users=30", "task.made_items=40", "task.queries=3", "algo=melu", "backbone=embeddings", "device=cpu")


@pytest.mark.parametrize(("before", "now"), [("true", "false"), ("false", "true")])
def test_residuals_of_ratings_are_those_of_the_training(before: str, now: str):
    trained = build(composed(*MADE, f"task.residual={before}"))
    made = preparation_by(trained.source)
    assert made is not None
    stored = Checkpoint(0, {}, {}, config=trained.config, preparation=made.stored())
    check_statistics(build(trained.config), stored, ["task.residual"])
    other = build({**trained.config, "task": {**trained.config["task"], "residual": now == "true"}})
    with pytest.raises(UserError, match=rf"task.residual={now} would change what the outputs of the network stand for.* leave it out"):
        check_statistics(other, stored, ["task.residual"])


def test_other_limits_of_ratings_keep_the_statistics_of_the_training():
    trained = build(composed(*MADE, "task.made_items=80", "task.max_ratings=35", "task.train_longer=drop"))
    assert trained.config["task"]["left_out"]
    again = build({**trained.config, "task": {**trained.config["task"], "max_ratings": None, "min_ratings": 25}}, scored="test")
    assert again.source.unit() == trained.source.unit()
    assert torch.equal(again.source.item_offsets(), trained.source.item_offsets())
    assert torch.equal(again.source.training_ratings().item, trained.source.training_ratings().item)
