"""The Python interface: words for Hydra, results as on the command line, and a process that stays as it was."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

import metarun
from metarun.cli.interface import _composed, _words
from metarun.commands.model import load
from metarun.errors import UserError

SHORT: dict[str, Any] = {"steps": 2, "eval_every": 1, "eval_episodes": 2, "tasks_per_step": 1, "logger": "jsonl"}
SINUSOID = {"task": "sinusoid", "backbone": "mlp", "backbone.widths": [4], "device": {"name": "cpu", "threads": 1}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def process() -> tuple[object, ...]:
    root = logging.getLogger()
    return (
        *(list(sys.argv), logging.raiseExceptions, list(root.handlers), root.level, GlobalHydra.instance().is_initialized()),
        *(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)),
    )


def test_a_run_is_trained_resumed_scored_and_loaded_from_python_and_the_process_stays_as_it_was(here: Path):
    before = process()
    run = metarun.train(SINUSOID, algo="maml", **SHORT)
    folder = Path(run.pop("folder"))
    assert run == json.loads((folder / "report.json").read_text())
    assert (run["steps"], folder.parent) == (2, here / "outputs/sinusoid-maml")
    report = metarun.evaluate(folder, ["episodes=3"], task={"shots": 4}, seed=1)
    assert (report["episodes"], report["shots"], report["seed"], report["trained_on"]) == (3, 4, 1, "sinusoid")
    (written,) = (folder / "eval").glob("*/report.json")
    assert report == {**json.loads(written.read_text()), "folder": str(written.parent.absolute())}
    again = metarun.train(resume=folder, steps=3)
    assert (again["steps"], again["folder"]) == (3, str(folder))
    assert load(folder).variance > 0  # type: ignore[operator]
    assert process() == before


@pytest.mark.parametrize(
    ("overrides", "keys", "sentence"),
    [
        (["algo=nope"], {}, "algo has no option 'nope'"),
        ("algo=maml", {}, r"give the overrides as a list, \['algo=maml'\]"),
        (None, {}, "the overrides are a NoneType"),
        (["-m"], {}, "'-m' is not of the form key=value"),
        ([], {"steps": "many"}, "steps='many' should be a whole number"),
        ({"task.shotz": 3}, {}, "no key 'task.shotz'. Did you mean 'task.shots'"),
        ([], {"algo": object()}, "algo has a value of the type object"),
        ([], {"algo": "maml,reptile"}, "algo has no option|several values|names no option"),
        ([], {"resume": "nowhere"}, "resume=.*no such run folder"),
    ],
)
def test_a_mistake_is_the_sentence_of_the_command_and_leaves_no_folder(here: Path, overrides: Any, keys: dict[str, Any], sentence: str):
    before = process()
    with pytest.raises(UserError, match=sentence):
        metarun.train(overrides, **keys)
    assert list(here.iterdir()) == []
    assert process() == before


def test_values_of_python_arrive_as_they_are():
    values = [None, True, 3, 1e-05, "text", "true", "3", "a b", "it's", "${seed}", "a,b", "[1]", "", [1, "a b"], {"a": [1, None]}]
    words = _words({f"+own{place}": value for place, value in enumerate([*values, Path("a b/c")])}, {})
    cfg = _composed("train", words)[0]
    assert [cfg[f"own{place}"] for place in range(len(words))] == [*values, "a b/c"]


def test_threads_compose_one_after_the_other_and_the_hydra_of_the_caller_stays():
    sentences: list[str] = []

    def mistake() -> None:
        with pytest.raises(UserError) as caught:
            metarun.train(steps="many")
        sentences.append(str(caught.value))

    with initialize_config_module("metarun.configs", version_base="1.3"):
        own = GlobalHydra.instance().hydra
        threads = [Thread(target=mistake) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert GlobalHydra.instance().hydra is own
    assert len(sentences) == 4
    assert all("steps='many'" in each for each in sentences)


def test_numbers_of_numpy_and_mappings_of_a_group_become_words():
    assert _words({}, {"seed": np.int64(3), "task": {"shots": 5, "rotations": {"train": False}}}) == [
        *("seed=3", "task.shots=5", "task.rotations={train:false}")
    ]


def test_a_list_of_runs_is_one_override():
    with pytest.raises(UserError, match="there is no checkpoint or run folder 'a b'"):
        metarun.evaluate(["a b", Path("c")])


def test_importing_metarun_is_cheap_and_names_what_it_offers():
    code = (
        "import sys, metarun; print(sorted(metarun.__all__), [name in sys.modules for name in ('torch', 'hydra', 'numpy')], dir(metarun))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "['Model', 'Predictor', 'UserError', '__version__', 'evaluate', 'load', 'train'] [False, False, False]" in out
    assert all(f"'{name}'" in out for name in metarun.__all__)
    with pytest.raises(AttributeError, match="module 'metarun' has no attribute 'lode'"):
        _ = metarun.lode  # type: ignore[attr-defined]
