"""The text of a progress display at any width."""

from __future__ import annotations

import pytest

from metarun.records.progress_line import Shown, fitted, line, with_bar

LATE = {
    "loss": Shown(11310.4),
    "accuracy": Shown(0.83214),
    "val accuracy": Shown(0.9391, 500),
    "val glyphs": Shown("95.10 %", 500),
    "tasks/s": Shown(130.21),
}


def text(width: int | None, shown: dict[str, Shown] = LATE, **more: str) -> str:
    return line("step 900/2,000", shown, step=900, width=width, **({"left": "1:02:03"} | more))


def test_a_wide_line_has_every_value_with_separators_percentages_and_the_step_of_the_validation() -> None:
    assert text(200) == (
        "step 900/2,000  loss 11,310  accuracy 83.21 %  val accuracy 93.91 % (step 500)  130.2 tasks/s  "
        "val glyphs 95.10 % (step 500)  1:02:03 left"
    )


def test_a_narrow_line_keeps_the_loss_the_validation_and_the_time_left() -> None:
    assert text(69) == "step 900/2,000  loss 11,300  val 93.9 % (500)  1:02:03 left"


@pytest.mark.parametrize("width", range(14, 150))
def test_no_line_is_wider_than_asked(width: int) -> None:
    assert len(text(width)) <= width
    assert text(width).startswith("step 900/2,000")


def test_values_leave_in_the_order_of_their_importance() -> None:
    gone = []
    for width in range(150, 13, -1):
        gone += [name for name in ("glyphs", "/s", "acc", "val", "loss", "left") if name not in gone and name not in text(width)]
    assert [name for name in gone if name != "acc"] == ["glyphs", "/s", "val", "loss", "left"]


def test_the_score_of_this_step_needs_no_step() -> None:
    assert text(200, {"val mse": Shown(0.25, 900)}) == "step 900/2,000  val mse 0.2500  1:02:03 left"


def test_what_takes_place_stands_beside_the_count() -> None:
    shown = line("step 0/2,000", {}, step=0, width=69, doing="compiling the step … 00:12")
    assert shown == "step 0/2,000  compiling the step … 00:12"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3.16, "3.160"),
        (999.96, "1,000"),
        (9999.6, "10,000"),
        (1131.4, "1,131"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-20314, "-20,310"),
    ],
)
def test_numbers_keep_their_digits_and_have_no_exponent(value: float, shown: str) -> None:
    assert text(200, {"loss": Shown(value)}) == f"step 900/2,000  loss {shown}  1:02:03 left"


def test_a_count_that_is_too_long_is_cut() -> None:
    assert fitted([], 10) == ""
    assert line("step 1,000,000/2,000,000", {}, step=1, width=10) == "step 1,000"


@pytest.mark.parametrize("width", range(10, 120))
def test_a_bar_never_makes_the_line_wider_than_asked(width: int) -> None:
    assert len(with_bar("step 1/2", 0.5, width)) <= width


def test_a_bar_fills_the_room_that_is_left_and_needs_some_room() -> None:
    assert with_bar("step 1/2", 0.5, 200, unicode=False) == "step 1/2  " + "#" * 20 + " " * 20 + "  50 %"
    assert with_bar("step 1/2", 0.5, 200) == "step 1/2  " + "█" * 20 + " " * 20 + "  50 %"
    assert with_bar("step 1/2", 0.5, 16) == "step 1/2  50 %"
    assert with_bar("step 1/2", 0.5, 12) == "step 1/2"
