"""Numbers as a report writes them: an interval has two digits that count, and its score ends at the same place."""

from __future__ import annotations

import math
from typing import Any

from metarun.commands.comparing.reading import number
from metarun.commands.reporting.page import Cell

MINUS = "−"
NAMES = {"accuracy": "accuracy", "mse": "mean squared error", "nll": "negative log-likelihood", "mae": "mean absolute error"}
"""Metrics in words."""


def higher_is_better(metric: str) -> bool:
    """Return whether a larger score is better: of an accuracy and of a ranking, not of an error."""
    return metric == "accuracy" or metric.startswith(("ndcg", "recall", "hit", "mrr", "coverage"))


def scale_of(metric: str) -> float:
    """Return the factor from a stored score to a shown one: accuracies are shown in percent."""
    return 100.0 if metric == "accuracy" else 1.0


def digits_of(half: float | None, value: float | None, percent: bool) -> int:
    """Return the decimals of a number, from the first two digits of half its interval; without one, of the number itself."""
    if half is None or half <= 0.0:
        if percent or value is None or value == 0.0:
            return 2 if percent else 3
        return min(6, max(0, 3 - math.floor(math.log10(abs(value)))))
    most = 2 if percent else 6
    return min(most, max(0, 1 - math.floor(math.log10(half))))


def fixed(value: float | None, decimals: int, signed: bool = False) -> str:
    """Return a number with a true minus sign; "–" for a missing one."""
    if value is None:
        return "–"
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    return text.replace("-", MINUS)


def plain(value: float | None) -> str:
    """Return a number of unknown size with four digits that count."""
    if value is None:
        return "–"
    return f"{value:.4g}".replace("-", MINUS)


def with_half(value: float | None, half: float | None, metric: str, signed: bool = False) -> str:
    """Return a score with half its interval, such as "95.4 % ± 0.9" or "0.453 ± 0.045"."""
    if value is None:
        return "not finite"
    factor, percent = scale_of(metric), metric == "accuracy"
    half = None if half is None else factor * half
    if not percent and 0.0 < max(abs(value), half or 0.0) < 1e-4:
        return f"{plain(float(f'{value:.2g}'))}" + (f" ± {plain(float(f'{half:.2g}'))}" if half is not None else "")
    decimals = digits_of(half, factor * value, percent)
    text = fixed(factor * value, decimals, signed) + (" %" if percent else "")
    return text + (f" ± {fixed(half, decimals)}" if half is not None else "")


def difference(value: float, half: float | None, metric: str) -> str:
    """Return the size of a difference in words, such as "3.1 ± 0.8 points" or "0.12 ± 0.03"."""
    text = with_half(abs(value), half, metric).replace(" %", "")
    return f"{text} points" if metric == "accuracy" else text


def score_cell(value: Any, half: Any, metric: str, strong: bool = False) -> Cell:
    """Return the cell of a score with its interval; empty where there is none."""
    mean = number(value)
    return Cell(with_half(mean, number(half), metric) if mean is not None else "–", mean, strong)


def number_cell(value: Any, form: str = "{:,}") -> Cell:
    """Return the cell of a number."""
    found = number(value)
    return Cell("–" if found is None else form.format(value).replace("-", MINUS), found)


def duration(seconds: float | None) -> str:
    """Return a time in the units in which people speak of it."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
