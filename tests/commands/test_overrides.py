"""Changes to a checkpoint's config, for `resume=` and for `metarun eval`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from small import Lines, few_shot

from metarun.commands import overrides
from metarun.errors import UserError
from metarun.records.checkpoint import Checkpoint

CONFIGS = Path(__file__).parents[2] / "configs/logger"

CONFIG: dict[str, Any] = {
    "steps": 10,
    "seed": 0,
    "input_shape": [1, 28, 28],
    "options": {"algo": "maml", "task": "glyphs", "device": "auto"},
    "algo": {"inner_lr": 0.4, "inner_steps": 1, "test_inner_steps": 3},
    "task": {"_target_": "x.glyphs", "ways": 5, "shots": 1, "eval_seed": 0},
    "backbone": {"norm": "batch"},
    "device": {"threads": "auto", "task_chunk": 4, "compile": "auto", "kernels": "torch"},
}
STORED = Checkpoint(step=3, params={}, state={}, config=CONFIG, execution={"threads": 2, "chunk": 8, "compile": False, "kernels": "c"})


def test_setting_a_key_leaves_the_original_alone():
    config = {"task": {"shots": 1, "rotations": {"train": True}}}
    assert overrides.put(config, "task.rotations.train", False) == {"task": {"shots": 1, "rotations": {"train": False}}}
    assert config["task"]["rotations"] == {"train": True}
    assert overrides.leaves(config) == [("task.shots", 1), ("task.rotations.train", True)]


def test_a_resumed_run_decides_as_the_run_did_where_the_device_decided() -> None:
    device = overrides.resume_config(STORED, {}, {})["device"]
    assert device == {"threads": 2, "task_chunk": 4, "compile": False, "kernels": "torch"}


def test_a_resumed_run_takes_more_steps_and_another_device_and_nothing_else() -> None:
    assert overrides.resume_config(STORED, {"steps": 20, "device.threads": 1}, {})["steps"] == 20
    assert overrides.resume_config(STORED, {"device": "cpu"}, {"device": {"name": "cpu"}})["device"] == {"name": "cpu"}
    assert overrides.resume_config(STORED, {"algo": "maml", "algo.inner_lr": 0.4}, {})["algo"] == CONFIG["algo"]
    for key, value, before in (("algo", "reptile", "maml"), ("algo.inner_lr", 0.1, "0.4")):
        with pytest.raises(UserError, match=f"{key}={value} differs from the run's {before}; on resume only steps, .* may change"):
            overrides.resume_config(STORED, {key: value}, {})


def evaluation(**changes: Any) -> dict[str, Any]:
    return overrides.evaluation_config(CONFIG, {"seed": 7, "device": {"name": "cpu"}, "options": {}, **changes})


def test_an_evaluation_takes_its_seed_and_its_device_and_keeps_the_rest() -> None:
    merged = evaluation()
    assert merged["task"] == {**CONFIG["task"], "eval_seed": 7}
    assert merged["device"] == {"name": "cpu"}
    assert (merged["algo"], merged["backbone"], merged["options"]) == (CONFIG["algo"], CONFIG["backbone"], CONFIG["options"])
    assert "input_shape" not in merged


def test_inner_steps_of_an_evaluation_are_those_of_the_test_where_the_algorithm_has_both() -> None:
    assert evaluation(inner_steps=9)["algo"] == {"inner_lr": 0.4, "inner_steps": 1, "test_inner_steps": 9}
    assert evaluation(norm="running")["backbone"] == {"norm": "running"}


def test_another_task_keeps_the_episodes_and_the_image_size_of_the_training_unless_typed() -> None:
    other = {"_target_": "x.folder", "ways": 20, "shots": 5, "image_size": 84, "channels": 3}
    merged = evaluation(task=other, options={"task": "folder"}, typed=["task.shots"])
    assert merged["task"] == {"_target_": "x.folder", "ways": 5, "shots": 5, "image_size": 28, "channels": 1}
    assert merged["options"]["task"] == "folder"
    assert merged["input_shape"] == [1, 28, 28]


def test_other_shots_of_an_evaluation_leave_the_episodes_of_training_as_they_were() -> None:
    task = {**CONFIG["task"], "queries": 15, "train_shots": None, "train_queries": 5, "augment": True}
    stored = {**CONFIG, "task": task}
    asked = {"seed": 7, "device": {}, "options": {}, "task": {"shots": 40}}
    merged = overrides.evaluation_config(stored, asked)["task"]
    assert merged == {**task, "shots": 40, "train_shots": 1, "eval_seed": 7, "augment": False}
    assert overrides.evaluation_config(stored, {**asked, "task": {}})["task"]["train_shots"] is None
    assert stored["task"]["augment"]


def test_a_list_of_sources_is_refused_where_the_checkpoint_has_no_mixture() -> None:
    asked = {"seed": 0, "device": {}, "options": {}, "task": {"only": ["line"]}}
    with pytest.raises(UserError, match=r"^task\.sources=\[…\] picks families of a mixture, and the checkpoint's task is no mixture\."):
        overrides.evaluation_config(CONFIG, asked)
    with pytest.raises(UserError, match=r"^task\.sources=\[…\] picks families of a mixture"):
        overrides.resume_config(STORED, {"task.only": ["line"]}, {})


class Choosing:
    """An algorithm that chooses on validation episodes."""

    def choose(self, params: Any, state: Any, score: Any) -> Any:
        return state


@pytest.mark.parametrize("key", ["algo.test_inner_lrs", "algo.inner_lrs", "algo.max_inner_steps"])
def test_candidates_of_a_choice_that_the_checkpoint_holds_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key} has no effect on an evaluation"):
        overrides.check_choice(Choosing(), ["seed", key])  # type: ignore[arg-type]
    overrides.check_choice(Choosing(), ["algo.test_inner_steps"])  # type: ignore[arg-type]
    overrides.check_choice(object(), [key])  # type: ignore[arg-type]  # a key of the same name, without a choice


def test_a_key_that_the_checkpoint_lacks_gets_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"there is no key 'task\.shotss' in the checkpoint's config\..*Did you mean 'task\.shots'"):
        evaluation(task={"shotss": 3})


@pytest.mark.parametrize("before", [None, {"line": 3}])
def test_a_mapping_is_the_value_of_the_key_for_which_it_was_typed(before: Any) -> None:
    stored = {**CONFIG, "task": {**CONFIG["task"], "weights": before, "sources": {"line": {"_target_": "x.line", "shots": 10}}}}
    weights = {"line": 0, "sinusoid": 1}
    asked = {"seed": 7, "options": {}, "task": {"weights": weights, "sources": {"line": {"shots": 5}}}}
    merged = overrides.evaluation_config(stored, {**asked, "typed": ["task.weights", "task.sources"]})["task"]
    assert merged["weights"] == weights
    assert merged["sources"] == {"line": {"_target_": "x.line", "shots": 5}}, "a source keeps its other keys"


def test_a_key_below_null_is_refused_with_the_form_of_the_value() -> None:
    stored = {**CONFIG, "task": {**CONFIG["task"], "weights": None}}
    with pytest.raises(UserError, match=r"where task\.weights is null; give task\.weights as a whole: task\.weights=\{…\}"):
        overrides.evaluation_config(stored, {"seed": 7, "options": {}, "task": {"weights": {"line": 1}}, "typed": ["task.weights.line"]})


def test_no_suggestion_names_a_key_that_nobody_types() -> None:
    stored = {**CONFIG, "options": {"task@task.sources.im": "folder"}}
    with pytest.raises(UserError, match=r"^there is no key 'task\.im' in the checkpoint's config\.(?!.*options)"):
        overrides.evaluation_config(stored, {"seed": 7, "options": {}, "task": {"im": 1}})


FOLDER = {"_target_": "metarun.tasks.folder.folder", "root": "old/photos.zip", "split_file": "split.json"}
OMNIGLOT = {"_target_": "metarun.tasks.omniglot.omniglot", "root": "theirs", "download": False}


def with_task(task: dict[str, Any], **changes: Any) -> Checkpoint:
    return dataclasses.replace(STORED, config={**CONFIG, "task": task}, **changes)


def test_the_place_of_the_data_may_change_and_their_name_stays() -> None:
    moved = overrides.resume_config(with_task(FOLDER), {"task.root": "new"}, {})
    assert moved["task"] == {**FOLDER, "root": "new", "data": "photos"}
    named = overrides.resume_config(with_task(FOLDER, data={"name": "set"}), {"task.root": "new"}, {})
    assert named["task"]["data"] == "set"
    again = overrides.resume_config(dataclasses.replace(STORED, config=moved), {"task.root": "third"}, {})
    assert again["task"]["data"] == "photos"
    assert overrides.resume_config(with_task(FOLDER), {"task.root": FOLDER["root"]}, {})["task"] == FOLDER
    assert overrides.resume_config(with_task({**FOLDER, "root": None}), {"task.root": "new"}, {})["task"] == {**FOLDER, "root": "new"}
    table = {"_target_": "metarun.tasks.table.table", "path": "a.csv"}
    nested = with_task({"_target_": "x.mixture", "sources": {"t": table}}, data={"sources": {"t": {"name": "houses"}}})
    assert overrides.resume_config(nested, {"task.sources.t.path": "b.csv"}, {})["task"]["sources"]["t"] == {
        **table,
        "path": "b.csv",
        "data": "houses",
    }


@pytest.mark.parametrize("key", ["task.split_file", "task.seed", "save.root", "root"])
def test_no_other_key_counts_as_a_place_of_the_data(key: str) -> None:
    with pytest.raises(UserError):
        overrides.resume_config(with_task(FOLDER), {key: "new"}, {})


@pytest.mark.parametrize("name", [3, ["x"], None])
def test_a_stranger_s_name_of_the_data_is_text_or_has_no_effect(name: Any) -> None:
    moved = overrides.resume_config(with_task(FOLDER, data={"name": name, "sources": name}), {"task.root": "new"}, {})
    assert moved["task"]["data"] == "photos"


def test_a_download_needs_a_folder_that_the_user_names() -> None:
    words = r"task\.download would write into theirs, a folder that the checkpoint names; give task\.root=DIR too"
    stored = with_task(OMNIGLOT)
    with pytest.raises(UserError, match=words):
        overrides.resume_config(stored, {"task.download": True}, {})
    assert overrides.resume_config(stored, {"task.download": True, "task.root": "mine"}, {})["task"]["root"] == "mine"
    assert overrides.resume_config(with_task({**OMNIGLOT, "root": None}), {"task.download": True}, {})["task"]["download"] is True
    assert overrides.resume_config(stored, {"task.download": False}, {})["task"] == OMNIGLOT
    with pytest.raises(UserError, match=words):
        overrides.evaluation_config(stored.config, {"seed": 0, "task": {"download": True}, "options": {}})
    own = overrides.evaluation_config(stored.config, {"seed": 0, "task": {**OMNIGLOT, "download": True}, "options": {"task": "omniglot"}})
    assert own["task"]["download"] is True


@pytest.mark.parametrize(
    "asked", [{"task": {"eval_seed": 7}}, {"typed": ["task.eval_seed"]}, {"task": {"sources": {"line": {"eval_seed": 1}}}}]
)
def test_the_seed_of_an_evaluation_has_one_key(asked: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"eval_seed does not set the episodes of an evaluation; give seed=… instead"):
        evaluation(**asked)


def test_data_without_a_fingerprint_are_told_only_where_they_moved() -> None:
    source = few_shot()
    assert overrides.changed_data({}, source, ["steps"]) == []
    assert overrides.changed_data({}, source, ["task.root"]) == ["the checkpoint does not say what the data were"]
    assert overrides.changed_data({}, Lines(), ["task.root"]) == []
    assert overrides.changed_data(source.fingerprint(), source, ["task.root"]) == []


@pytest.mark.parametrize("key", ["root", "path"])
def test_data_that_are_gone_are_asked_for_by_their_key(tmp_path: Path, key: str) -> None:
    stored = {"task": {"sources": {"a": {key: str(tmp_path / "gone")}}, "root": None}}
    with pytest.raises(UserError, match=rf"where the checkpoint's data were; if they moved, give task\.sources\.a\.{key}=PLACE"):
        overrides.check_data(stored, stored)
    overrides.check_data({"task": {"sources": {"a": {key: "typed now"}}}}, stored)
    (tmp_path / "gone").touch()
    overrides.check_data(stored, stored)


def test_places_of_a_task_become_absolute_where_they_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    task = {"root": "photos", "path": "gone", "split": "photos", "sources": {"a": {"root": "~/photos"}}, "label_files": ["photos", 3]}
    wanted = str(tmp_path / "photos")
    changed = {"root": wanted, "path": "gone", "split": "photos", "sources": {"a": {"root": wanted}}, "label_files": [wanted, 3]}
    assert overrides.with_absolute_places({"task": task, "seed": 3}) == {"task": changed, "seed": 3}


def test_values_go_to_a_server_only_where_the_user_names_it() -> None:
    node = {"_target_": "metarun.records.loggers.mlflow.MLflow", "tracking_uri": "http://stranger", "experiment": "x"}
    config = {"logger": {"_target_": "metarun.records.tracking.Tracker", "mlflow": node}}
    with pytest.raises(UserError, match=r"the checkpoint sets logger\.mlflow.tracking_uri=http://stranger, to which the run would send"):
        overrides.check_loggers(config, ["steps"])
    overrides.check_loggers(config, ["logger.mlflow.tracking_uri"])
    overrides.check_loggers(config, ["logger"])
    overrides.check_loggers({"logger": {"mlflow": {**node, "tracking_uri": None}}}, [])


@pytest.mark.parametrize("key", overrides.SENDS_TO)
def test_each_key_that_names_the_place_of_somebody_is_a_key_of_a_shipped_logger(key: str) -> None:
    _, logger, name = key.split(".")
    assert name in yaml.safe_load((CONFIGS / f"{logger}.yaml").read_text())[logger]
