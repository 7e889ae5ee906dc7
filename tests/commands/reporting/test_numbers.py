"""Numbers as a report writes them."""

from __future__ import annotations

import pytest

from metarun.commands.reporting.numbers import difference, duration, number_cell, plain, score_cell, with_half


@pytest.mark.parametrize(
    ("value", "half", "metric", "text"),
    [
        (0.954, 0.0094, "accuracy", "95.40 % ± 0.94"),
        (0.954, 0.034, "accuracy", "95.4 % ± 3.4"),
        (0.954, None, "accuracy", "95.40 %"),
        (0.4534, 0.0452, "mse", "0.453 ± 0.045"),
        (1234.5, 67.8, "mse", "1234 ± 68"),
        (None, 0.1, "mse", "not finite"),
        (-1.5, 0.25, "nll", "−1.50 ± 0.25"),
        (0.00000012, 0.00000003, "mse", "1.2e−07 ± 3e−08"),
    ],
)
def test_a_score_ends_at_the_second_digit_of_its_interval(value: float, half: float, metric: str, text: str) -> None:
    assert with_half(value, half, metric) == text


def test_a_difference_of_accuracies_is_in_points() -> None:
    assert difference(-0.031, 0.008, "accuracy") == "3.10 ± 0.80 points"
    assert difference(-0.2, 0.05, "mse") == "0.200 ± 0.050"


def test_a_missing_number_is_a_dash() -> None:
    assert score_cell(None, 0.1, "mse").text == number_cell(None).text == plain(None) == duration(None) == "–"
    assert score_cell(0.5, None, "accuracy").value == 0.5


@pytest.mark.parametrize(("seconds", "text"), [(12.4, "12 s"), (600, "10 min"), (7260, "2 h 01 min")])
def test_a_duration_has_its_usual_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
