"""Data that move or change between a run and its evaluation or its continuation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps
from small import composed
from small_runs import CONV, SHORT, SINUSOID, evaluate, image_config

from metarun.commands.train import train
from metarun.records import checkpoint
from metarun.testing import assert_same

SIZES = (
    "task.image_size=8",
    "task.channels=1",
    "task.split=[2,2,2]",
    "task.ways=2",
    "task.shots=1",
    "task.queries=1",
    "task.train_ways=2",
    "task.train_queries=1",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))


def photos(root: Path) -> Path:
    for number in range(6):
        (root / f"c{number}").mkdir(parents=True)
        for image in range(3):
            picture = Image.new("L", (8, 8), 40 * number)
            picture.putpixel((image, number), 255)
            picture.save(root / f"c{number}/{image}.bmp")
    return root


def invert(root: Path) -> None:
    for file in root.rglob("*.bmp"):
        ImageOps.invert(Image.open(file)).save(file)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ and a run of two steps on them. `memory` reads the numbers of classes, which follow from their names."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(folder / "cache"))
        task = composed("task=folder", f"task.root={photos(folder / 'photos')}", *SIZES)["task"]
        config = {**image_config("algo=memory", "algo.capacity=40", "steps=2"), "task": task, "backbone": dict(CONV)}
        train(config, folder / "run")
    return folder


@pytest.fixture
def here(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the run, whose photos lie at a place that is gone: its config names photos/ beside it."""
    shutil.copytree(stopped / "run", tmp_path / "run")
    shutil.copytree(stopped / "photos", tmp_path / "moved/pictures")
    return tmp_path


def resume(folder: Path, **overrides: Any) -> None:
    train({"resume": str(folder), "overrides": {"trust": ["small"], "steps": 4, **overrides}, "groups": {}}, folder)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("metarun:")]


def test_a_run_goes_on_bit_for_bit_after_its_data_moved(stopped: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(here / "run", here / "stayed")
    resume(here / "stayed")
    resume(here / "run", **{"task.root": str(here / "moved/pictures")})
    assert said(capsys) == []
    stayed, moved = (checkpoint.load(here / name / "checkpoints/last.pt") for name in ("stayed", "run"))
    for part in ("params", "state", "optimizer", "origins"):
        assert_same(getattr(moved, part), getattr(stayed, part), part, tolerance=0.0)
    assert (moved.config["task"]["root"], moved.config["task"]["data"]) == (str(here / "moved/pictures"), "photos")
    assert evaluate(here / "run", here / "eval")["episodes"] == 4
    assert said(capsys) == []


def test_a_run_goes_on_with_changed_data_and_says_what_changed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = here / "moved/pictures"
    for number in range(2):
        Image.new("L", (8, 8)).save(root / f"c{number}/new.bmp")
    invert(root / "c3")
    resume(here / "run", **{"task.root": str(root)})
    (line,) = said(capsys)
    words = "2 images added, the contents of 3 of 18 sampled images differ; if the old data are elsewhere, give task.root=PLACE"
    assert line == f"metarun: not bit for bit the run that was stopped, since {words}."
    resume(here / "run", steps=5)
    assert said(capsys) == [], "the new checkpoint describes the new data"


def test_an_evaluation_says_what_changed_since_the_training(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = here / "moved/pictures"
    place = {"task": {"root": str(root)}}
    unchanged = evaluate(here / "run", here / "first", **place)
    assert said(capsys) == []
    invert(root)
    evaluate(here / "run", here / "second", **place)
    (line,) = said(capsys)
    words = "the contents of 18 of 18 sampled images differ; if the old data are elsewhere, give task.root=PLACE."
    assert line.endswith(f"{here / 'run/checkpoints/best.pt'}: {words}")
    assert unchanged["episodes"] == json.loads((here / "second/report.json").read_text())["episodes"]


def test_an_evaluation_on_another_task_compares_no_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = composed("task=folder", f"task.root={photos(here / 'other')}", *SIZES)["task"]
    invert(here / "other")
    evaluate(here / "run", here / "eval", task=other, options={"task": "folder"}, overlap="allow")
    assert said(capsys) == []


def test_a_checkpoint_that_does_not_describe_its_data_says_so_where_they_moved(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = here / "run/checkpoints/last.pt"
    stored = checkpoint.load(last)
    stored.data.clear()
    checkpoint.save(last, stored)
    resume(here / "run", **{"task.root": str(here / "moved/pictures")})
    assert said(capsys) == ["metarun: not bit for bit the run that was stopped, since the checkpoint does not say what the data were."]


def rows(factor: float = 1.0, count: int = 4) -> str:
    return "\n".join(["task,x,y", *(f"t{task},{row},{factor * (task + row)}" for task in range(6) for row in range(count))])


@pytest.mark.parametrize(
    ("text", "words"),
    [(rows(), []), (rows(2.5), ["the values of the table differ"]), (rows(count=5), ["30 rows instead of 24"])],
)
def test_a_table_that_moved_and_changed_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: list[str]
) -> None:
    (tmp_path / "a.csv").write_text(rows())
    columns = ("task.task_column=task", "task.target=y", "task.shots=1", "task.queries=1", "steps=1", "eval_every=1", "algo.inner_lr=0.01")
    config = composed(*SHORT, *SINUSOID[1:3], "task=table", f"task.path={tmp_path / 'a.csv'}", *columns)
    train(config, tmp_path / "run")
    (tmp_path / "a.csv").unlink()
    (tmp_path / "b.csv").write_text(text)
    capsys.readouterr()
    resume(tmp_path / "run", **{"task.path": str(tmp_path / "b.csv"), "steps": 2})
    assert [line.partition("since ")[2] for line in said(capsys)] == [
        f"{word}; if the old data are elsewhere, give task.path=PLACE." for word in words
    ]
    assert all(name.startswith("a/") for name in checkpoint.load(tmp_path / "run/checkpoints/last.pt").origins)


def test_the_built_in_letters_have_a_fingerprint_too(maml_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images in memory: a change of the program that draws them is noticed."""
    shutil.copytree(maml_run, tmp_path / "run")
    for name in ("last.pt", "best.pt"):
        stored = checkpoint.load(tmp_path / "run/checkpoints" / name)
        assert stored.data["kind"] == "pictures"
        stored.data["digest"] = "0" * 64
        checkpoint.save(tmp_path / "run/checkpoints" / name, stored)
    resume(tmp_path / "run", steps=5)
    evaluate(tmp_path / "run", tmp_path / "eval")
    lines = said(capsys)
    assert len(lines) == 2
    assert all("images or classes differ" in line for line in lines)


@pytest.mark.parametrize(
    "change", [lambda data: data.update(listed="x"), lambda data: data.update(kind="\x1b[2J"), lambda data: data.clear()]
)
def test_a_stranger_s_description_of_the_data_does_no_harm(
    here: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], None]
) -> None:
    best = here / "run/checkpoints/best.pt"
    stored = checkpoint.load(best)
    change(stored.data)
    checkpoint.save(best, stored)
    evaluate(here / "run", here / "eval", task={"root": str(here / "moved/pictures")})
    assert "\x1b" not in capsys.readouterr().out
