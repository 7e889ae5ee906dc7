"""Figures of matplotlib, read back."""

from __future__ import annotations

import io
from typing import Any


def texts(figure: Any) -> list[str]:
    """Return the texts of a figure with one panel."""
    (axes,) = figure.axes
    return [text.get_text() for text in axes.texts if text.get_text()]


def png(figure: Any) -> bytes:
    """Return the figure as a file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
