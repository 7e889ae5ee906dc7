"""What a run or an evaluation tells about streams: the sentence, the matrix as CSV, and its picture."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.commands.report_files import origin, with_interval
from metarun.engine.report import Report
from metarun.errors import counted
from metarun.files.writing import write_bytes, write_text
from metarun.records.stream_pictures import matrix_csv, matrix_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATRIX = "stream_matrix"
"""The name of the CSV and of the picture."""


def stream_sentence(report: Report, facts: Mapping[str, Any]) -> str:
    """Return the result on trajectories as one line for a person."""
    stream = report.stream or {}
    parts = part_word(report.metric, plural=True)
    told = [f"after {'/'.join(map(str, stream['lengths']))} {parts}: {report.metric} {_scores(report.metric, stream, 'held_out')} held out"]
    told.append(f"{_scores(report.metric, stream, 'seen')} seen")
    if stream["forgetting"] is not None and math.isfinite(stream["forgetting"]):
        told.append(with_interval(report.metric, stream["forgetting"], stream["forgetting_ci95"]).replace(report.metric, "forgetting", 1))
    passes = "one pass" if stream["one_pass"] else "adapted anew to all examples so far"
    sizes = f"{counted(stream['per_part'], 'example')} a {part_word(report.metric)}, {stream['held_out_per_part']} held out"
    interval = f"95 % interval over {counted(report.episodes, facts['split'] + ' trajectory')}{origin(facts)}"
    return f"{'; '.join(told)}  [{interval}, {passes}, {sizes}, seed {facts['seed']}]"


def part_word(metric: str, *, plural: bool = False) -> str:
    """Return the word for a part of a stream."""
    word = "class" if metric == "accuracy" else "function"
    return {"class": "classes", "function": "functions"}[word] if plural else word


def stream_figure(report: Report, title: str) -> Figure:
    """Return the picture of the matrix of a report on trajectories."""
    return matrix_figure(report.stream_matrix, _rows(report), metric=report.metric, part=part_word(report.metric), title=title)


def write_matrices(reports: Sequence[Report], folder: Path, title: str) -> list[Path]:
    """Write the matrix of each report on trajectories into the folder, as CSV and as PNG; return the pictures."""
    written = []
    for number, report in enumerate(reports, start=1):
        if report.stream is None:
            continue
        name = MATRIX if len(reports) == 1 else f"{MATRIX}_{number}"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{name}.csv", matrix_csv(report.stream_matrix, _rows(report)))
        picture = io.BytesIO()
        stream_figure(report, title).savefig(picture, format="png")
        write_bytes(folder / f"{name}.png", picture.getvalue())
        written.append(folder / f"{name}.png")
    return written


def _rows(report: Report) -> list[int]:
    """Return the numbers of parts after which the rows of the matrix are scored."""
    stream = report.stream or {}
    return list(range(1, stream["parts"] + 1)) if stream["one_pass"] else stream["lengths"]


def _scores(metric: str, stream: Mapping[str, Any], name: str) -> str:
    """Return the scores after each length, such as "91.2 % ± 1.3 / 82.0 % ± 0.9"."""
    pairs = zip(stream[name], stream[f"{name}_ci95"], strict=True)
    return " / ".join(with_interval(metric, value, half).removeprefix(f"{metric} ") for value, half in pairs)
