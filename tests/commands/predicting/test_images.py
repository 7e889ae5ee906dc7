"""Labels for images: those of an evaluation on the same episode, with and without the data of the training."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small import composed
from small_runs import SHORT, evaluate, predict

from metarun.commands import abstaining
from metarun.commands.model import load
from metarun.commands.train import train
from metarun.engine.training import Settings
from metarun.errors import UserError
from metarun.tasks.omniglot import omniglot
from metarun.tasks.sampling import FewShot
from metarun.types import Examples
from metarun.wiring.build import build_source


def source_of(run: Path, **sizes: int) -> FewShot:
    """Return the task of a run on a folder, with other sizes of its episodes."""
    config = {"task": {**load(run, ["small"], "cpu").members[0].config["task"], **sizes}}
    source = build_source(config)
    assert isinstance(source, FewShot)
    return source


def save(examples: Examples, root: Path, shade: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> Path:
    """Write examples as files, one folder for each class."""
    for number, (x, y) in enumerate(zip(examples.x, examples.y, strict=True)):
        folder = root / f"class {int(y.argmax()):02} é"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (255 * shade(x)).round().to(torch.uint8).movedim(0, -1)
        Image.fromarray(pixels[..., 0].numpy() if pixels.shape[-1] == 1 else pixels.numpy()).save(folder / f"{number:03}.png")
    return root


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrate on few episodes."""
    monkeypatch.setattr(abstaining, "EPISODES", 10)


@pytest.fixture
def cases(picture_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return known images and queries of test classes, in folders."""
    support, query = source_of(picture_run).episode("test", 0)
    return save(support, tmp_path / "known"), save(query, tmp_path / "new")


def test_the_accuracy_is_that_of_an_evaluation_on_the_same_episode(picture_run: Path, cases: tuple[Path, Path], tmp_path: Path) -> None:
    report = predict(picture_run, *cases, tmp_path / "p")
    scored = evaluate(picture_run, tmp_path / "e", episodes=1)
    assert torch.tensor(report["accuracy"]["share"]) == torch.tensor(scored["mean"])
    assert report["accuracy"]["of"] == 6
    rows = read(tmp_path / "p")
    assert list(rows[0]) == ["path", "label", "probability", "class 00 é", "class 01 é", "class 02 é"]
    assert [row["path"] for row in rows] == sorted(str(file.relative_to(cases[1])) for file in cases[1].rglob("*.png"))
    for row in rows:
        assert row["probability"] == row[row["label"]] == max((row[name] for name in list(row)[3:]), key=float)
    page = (tmp_path / "p/predictions.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 6
    assert page.count('src="data:image/jpeg;base64,') == 12


def test_omniglot_20_unseen_characters_one_drawing_each_score_as_in_eval(omniglot_root: Path, tmp_path: Path) -> None:
    """Real drawings, as files with dark ink: the labels, and the accuracy, are those of the episode of the evaluation."""
    few = ["backbone.filters=4", "task.queries=2", "task.train_queries=1", "task.train_ways=5"]
    train(composed(*SHORT, "steps=2", "algo=protonet", "task=omniglot", f"task.root={omniglot_root}", *few), tmp_path / "run")
    support, query = omniglot(root=str(omniglot_root), ways=20, shots=1, queries=2).episode("test", 0)
    known, new = (save(each, tmp_path / name, lambda x: 1 - x) for each, name in ((support, "known"), (query, "new")))
    report = predict(tmp_path / "run", known, new, tmp_path / "p")
    scored = evaluate(tmp_path / "run", tmp_path / "e", episodes=1, task={"ways": 20, "queries": 2})
    assert torch.tensor(report["accuracy"]["share"]) == torch.tensor(scored["mean"])
    predictor = load(tmp_path / "run", device="cpu").adapt(support.x, support.y.argmax(dim=1))
    assert [row["label"] for row in read(tmp_path / "p")] == [f"class {label:02} é" for label in predictor.predict(query.x)]


def test_a_copied_run_without_the_photographs_predicts_the_same(
    picture_run: Path, cases: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(picture_run, *cases, tmp_path / "p", abstain=0.2)
    with_data = capsys.readouterr().out
    shutil.copytree(picture_run, tmp_path / "copied")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(abstaining, "check_data", gone)
        predict(tmp_path / "copied", *cases, tmp_path / "q")
        assert [{**row, "label": ""} for row in read(tmp_path / "q")] == [{**row, "label": ""} for row in read(tmp_path / "p")]
        capsys.readouterr()
        report = predict(tmp_path / "copied", *cases, tmp_path / "r", abstain=0.2)
        without = capsys.readouterr().out
        (tmp_path / "copied/calibration.json").unlink()
        with pytest.raises(UserError, match=r"abstain=0.2 needs .* calibration.json, .*: the photographs are gone\. Put the data"):
            predict(tmp_path / "copied", *cases, tmp_path / "s", abstain=0.2)
    assert "4 validation classes in the data of the training" in with_data
    assert "4 validation classes stored by the training" in without
    assert report["abstain"]["validation"]["ways"] == 3
    assert report["abstain"]["validation"]["shots"] == 2


def gone(*_: Any) -> None:
    raise UserError("the photographs are gone.")


def test_foreign_queries_are_counted_and_some_are_rejected(picture_run: Path, cases: tuple[Path, Path], tmp_path: Path) -> None:
    """A plain black image is of no class, and a score of it can be high or low: only the counts are certain."""
    (cases[1] / "night").mkdir()
    Image.new("RGB", (8, 8)).save(cases[1] / "night/1.png")
    shutil.copy(next(cases[0].rglob("*.png")), cases[1] / "night/2.png")
    report = predict(picture_run, *cases, tmp_path / "p", abstain=0.3)
    assert report["copies"] == 1
    assert report["foreign_rejected"]["of"] == 1
    assert report["true_rejected"]["of"] == report["accuracy"]["of"] == 6
    rejected = [row for row in read(tmp_path / "p") if row["label"] == "none of these"]
    assert len(rejected) == report["labels"].get("none of these", 0)
    assert 0 < report["abstain"]["validation"]["true_rejected"]["mean"] < 1


def test_the_labels_of_a_list_with_another_number_of_pictures_of_each_class(
    picture_run: Path, cases: tuple[Path, Path], tmp_path: Path
) -> None:
    names = sorted(str(file.relative_to(tmp_path)) for file in cases[0].rglob("*.png"))[:-1]
    lines = [f'"{name}","{Path(name).parent.name}, ""x"""' for name in names]
    (tmp_path / "known.csv").write_text("\n".join(["path,label", *lines]) + "\n", encoding="utf-8")
    report = predict(picture_run, tmp_path / "known.csv", cases[1], tmp_path / "p")
    assert list(report["classes"].values()) == [2, 2, 1]
    assert "accuracy" not in report
    assert set(report["labels"]) <= {f'class {number:02} é, "x"' for number in range(3)}
    assert set(report["labels"]) == {row["label"] for row in read(tmp_path / "p")}


def test_unreadable_pictures_are_named_before_the_model_works(
    picture_run: Path, cases: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cases[0] / "class 00 é/bad.jpg").write_bytes(b"no")
    (cases[1] / "worse.png").write_bytes(b"")
    monkeypatch.setattr("metarun.commands.model.Model.adapt", lambda *_: pytest.fail("the model worked"))
    with pytest.raises(UserError, match=r"bad\.jpg.*worse\.png"):
        predict(picture_run, *cases, tmp_path / "p")
    assert not list((tmp_path / "p").iterdir())


def test_a_class_with_the_name_of_the_rejected_is_refused(picture_run: Path, cases: tuple[Path, Path], tmp_path: Path) -> None:
    (cases[0] / "class 00 é").rename(cases[0] / "none of these")
    assert "none of these" in predict(picture_run, *cases, tmp_path / "p")["classes"]
    with pytest.raises(UserError, match=r"called 'none of these'.*rename"):
        predict(picture_run, *cases, tmp_path / "q", abstain=0.1)


def test_a_head_of_three_ways_takes_two_classes_and_refuses_four(maml_run: Path, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"known/{number}").mkdir(parents=True)
        Image.new("L", (8, 8), 60 * number).save(tmp_path / f"known/{number}/a.png")
    with pytest.raises(UserError, match=r"has a head for 3.*protonet"):
        predict(maml_run, tmp_path / "known", tmp_path / "known", tmp_path / "p")
    for number in (2, 3):
        shutil.rmtree(tmp_path / f"known/{number}")
    report = predict(maml_run, tmp_path / "known", tmp_path / "known", tmp_path / "q")
    assert report["queries"] == report["copies"] == 2
    assert list(read(tmp_path / "q")[0]) == ["path", "label", "probability", "0", "1"]


def test_a_short_training_stores_no_calibration(maml_run: Path, picture_run: Path) -> None:
    """The validation of 3 episodes has 3 x 3 x (2 + 2) = 36 images, and the first calibration counts 3 x 3 x (2 + 6) = 72: no more."""
    assert not (maml_run / "calibration.json").exists()
    content = json.loads((picture_run / "calibration.json").read_text())
    assert [(each["ways"], each["shots"]) for each in content["calibrations"]] == [(3, 2)]
    assert len(content["calibrations"][0]["true"]["logit"]) == 3


def test_an_impossible_calibration_is_logged_and_ends_no_training(
    picture_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = dataclasses.replace(load(picture_run, ["small"], "cpu").parts, source=source_of(picture_run))
    shutil.copytree(picture_run / "checkpoints", tmp_path / "checkpoints")
    settings = Settings(steps=200, eval_episodes=2)
    monkeypatch.setattr(abstaining, "calibrate", gone)
    abstaining.keep_calibration(parts, settings, {"score": 1.0}, tmp_path)
    assert "abstain= of metarun predict will need the data of this training: the photographs are gone." in caplog.text
    assert not (tmp_path / "calibration.json").exists()
    monkeypatch.undo()
    abstaining.keep_calibration(parts, settings, {"score": 1.0}, tmp_path)
    assert len(json.loads((tmp_path / "calibration.json").read_text())["calibrations"][0]["true"]["energy"]) == 2
