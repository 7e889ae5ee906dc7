"""What `abstain=` says of its price."""

from __future__ import annotations

import pytest
import torch

from metarun.commands.abstaining import Abstention
from metarun.engine.rejection import SCORES, Calibration, Rate, Rejection


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
