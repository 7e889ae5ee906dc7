"""What `abstain=` says of its price."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metarun.commands import abstaining
from metarun.commands.abstaining import Abstention
from metarun.commands.abstaining import abstention as abstention_of
from metarun.commands.model import Model, load
from metarun.engine.rejection import SCORES, Calibration, Rate, Rejection
from metarun.errors import UserError
from metarun.wiring.streams import STREAM


def abstention(shots: float = 5.0, notes: tuple[str, ...] = ()) -> Abstention:
    scores = {name: torch.zeros(2, 2) for name in SCORES}
    choice = Rejection("energy", -1.5, {"probability": 0.6, "logit": 0.7, "energy": 0.875}, Rate(0.051, 0.01), Rate(0.62, 0.04), 100)
    return Abstention(0.05, choice, Calibration(scores, scores, 5, shots, 16), "stored by the training", notes)


@pytest.mark.parametrize(("shots", "said"), [(1.0, "5 ways and 1 shot,"), (5.0, "and 5 shots,"), (2.6, "and 2.6 shots on average,")])
def test_the_line_has_both_rates_their_intervals_and_the_sizes(shots: float, said: str) -> None:
    [line] = abstention(shots).lines
    assert line.startswith("abstain=0.05: on validation classes, a threshold on the energy rejects 5.1 % ± 1.0 of the queries of known ")
    assert "62.0 % ± 4.0 of those of other classes (95 % interval over 100 episodes" in line
    assert said in line
    assert line.endswith(
        "16 validation classes stored by the training; a query of a known class has the higher energy in 88 % of the pairs)"
    )


def test_notes_come_first_and_the_facts_say_the_same() -> None:
    found = abstention(notes=("the data are others.",))
    assert found.lines[0] == "the data are others."
    assert found.facts["validation"]["foreign_rejected"] == {"mean": 0.62, "ci95": 0.04}
    assert found.facts["threshold"] == -1.5


def test_a_run_on_a_stream_takes_the_validation_classes_of_its_images(picture_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(picture_run, "small", "cpu")
    images = {**model.members[0].config["task"], "ways": 2, "shots": 1, "queries": 1}
    sizes = {"classes": 2, "per_class": 2, "held_out": 1, "train_classes": 2}

    def of_stream(**changed: Any) -> Model:
        config = {**model.members[0].config, "task": {"_target_": STREAM, "source": {**images, **changed}, **sizes}}
        return replace(model, members=(replace(model.members[0], config=config),))

    found = abstention_of(of_stream(), 0.2, [2, 2])
    assert (found.calibration.classes, found.origin, found.notes) == (4, "in the data of the training", ())
    monkeypatch.setattr(abstaining, "stored", lambda *given: None)  # a training on a stream stores none
    with pytest.raises(
        UserError, match=r"^abstain=0\.2 needs the validation classes of the training: .*\. Put the data back, or leave out"
    ):
        abstention_of(of_stream(root="nowhere"), 0.2, [2, 2])


def test_too_few_validation_classes_are_no_reason_to_put_data_back(picture_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abstaining, "calibrate", lambda *given: None)
    monkeypatch.setattr(abstaining, "stored", lambda *given: None)
    with pytest.raises(
        UserError, match=r"calibration\.json, .*: the training has 4 validation classes, .* 2 images each\. Leave out abstain\.$"
    ):
        abstention_of(load(picture_run, "small", "cpu"), 0.2, [2, 2])
