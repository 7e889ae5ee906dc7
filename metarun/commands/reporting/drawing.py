"""How a report draws: matplotlib figures with one style, as SVG inside the page, or as files.

A figure is drawn in light colours. Inside the page, a CSS variable takes the place of each colour, so one drawing suits light and dark.
Texts stay texts in the SVG: a browser uses the page's font, and the file stays small. The drawing refers to nothing outside of it.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.commands.reporting.page import Picture, shown
from metarun.files.writing import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER, ACCENT = "#1c2430", "#667080", "#dfe3e8", "#fffffe", "#0b66c3"
SERIES = (ACCENT, "#d1600a", "#12876b", "#a8478f", "#8a6d00", "#2f95c4", "#5b5b6e")
"""Colours of lines: after Okabe and Ito, so that colour-blind readers can tell them apart, a little darker for thin lines on white."""
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", **{color: f"c{place}" for place, color in enumerate(SERIES)}}
"""Colour of a figure -> the name of its CSS variable in `templates/page.css`."""
WIDTH = 4.7
"""Width of a picture in inches: at this width, its letters are as large as the page's on a telephone."""
LARGEST = 1.65
"""Pixels of a point of a picture at most, so that the letters of all pictures have one size."""
PICTURES = (
    *("scores", "differences", "steps", "steps_median", "families", "ratings", "stream", "stream_matrix", "presentations"),
    *("reliability", "confusion", "predictions", "predicted"),
)
"""The names of the pictures, beside those of curves, such as curve_val_accuracy. Several streams have stream_matrix_1 and so on."""
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
    "axes.unicode_minus": True,
}


@contextmanager
def style(name: str) -> Iterator[None]:
    """Draw with the report's style. name: of the picture, which makes the identifiers inside its SVG its own."""
    import matplotlib

    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": f"metarun {name}"}):
        yield


def canvas(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Return a figure of this size in inches with one pair of axes and light horizontal rules."""
    figure = blank(height, width)
    axes = figure.subplots()
    axes.grid(axis="y")
    axes.tick_params(length=0)
    return figure, axes


def blank(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def label(text: Any, most: int = 30) -> str:
    """Return a name for a figure: short, without control characters, and without matplotlib's signs of mathematics."""
    return shown(text, most).replace("$", r"\$")


def is_picture(name: str) -> bool:
    """Return whether a report may have a picture of this name."""
    return name in PICTURES or re.fullmatch(r"curve_.+|stream_matrix_\d+", name) is not None


class Gallery:
    """Makes the pictures of a report, and writes each into a folder too where the user asks for files.

    folder: None for no files. form: "svg" or "png". only: the names of the files to write, () for all. names: of the pictures so far.
    written: the files so far.
    """

    def __init__(self, folder: Path | None = None, form: str = "png", only: Sequence[str] = ()) -> None:
        self.folder, self.form, self.only = folder, form, only
        self.names: list[str] = []
        self.written: list[Path] = []

    def picture(
        self, name: str, draw: Callable[[], Figure | None], caption: str = "", *, alt: str = "", wide: bool = False
    ) -> Picture | None:
        """Return the picture that `draw` draws; None where there is nothing to draw."""
        with style(name):
            figure = draw()
            if figure is None:
                return None
            svg = inline(figure)
            self.names.append(name)
            if self.folder is not None and (not self.only or name in self.only):
                file = self.folder / f"{name}.{self.form}"
                write_bytes(file, as_bytes(figure, self.form))
                self.written.append(file)
        return Picture(name, svg, caption, alt or caption, wide)


def as_bytes(figure: Figure, form: str) -> bytes:
    """Return a figure as the content of a file, equal for equal figures."""
    file = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(file, format=form, dpi=200, metadata=metadata)
    return file.getvalue()


def inline(figure: Figure) -> str:
    """Return a figure as an `<svg>` element for a page: colours as CSS variables, no declarations, no address of any kind."""
    file = io.BytesIO()
    nothing: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return tidied(file.getvalue().decode("utf-8"))


def tidied(svg: str) -> str:
    """Return the `<svg>` element of a file of matplotlib's, without the parts that a page does not need."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    head, body = svg[: svg.index(">") + 1], svg[svg.index(">") + 1 :]
    points = re.search(r'viewBox="0 0 ([\d.]+) ', head)
    head = re.sub(r' (xmlns(:\w+)?|version|width|height)="[^"]*"', "", head)
    if points:
        head = head.replace("<svg", f'<svg style="max-width: {float(points[1]) * LARGEST:.0f}px"', 1)
    body = re.sub(
        r'<g id="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|PathCollection|[A-Za-z]+Collection|legend)_?\d*">',
        "<g>",
        body,
    )
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r"(style=\")font: ([\d.]+)px [^;\"]*", r"\1font-size: \2px", body)
    body = re.sub(r"; font-family: [^;\"]*| transform=\"rotate\(-0 [^\"]*\"", "", body)
    body = re.sub(r"#[0-9a-f]{6}\b", _variable, body)
    return head + re.sub(r"\n\s*", "\n", body)


def _variable(found: re.Match[str]) -> str:
    name = VARIABLES.get(found[0])
    return f"var(--{name})" if name else found[0]


def plain_log(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with labels such as 0.2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def whole_numbers(axes: Axes) -> None:
    """Write the numbers of the horizontal axis with commas between thousands."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write texts at the right ends of lines, and move them apart where they would overlap. ends: height, text and colour."""
    low, high = axes.get_ylim()
    logarithmic = axes.get_yscale() == "log"
    place: Callable[[float], float] = math.log10 if logarithmic else float
    low, high = place(low), place(high)
    inches = axes.figure.bbox.height / axes.figure.dpi
    gap = (high - low) * 11.5 / (72.0 * max(1.0, inches - 0.6))
    inside = sorted((min(max(place(value), low), high), text, color) for value, text, color in ends)
    heights = spread([value for value, *_ in inside], gap, low, high)
    for height, (_, text, color) in zip(heights, inside, strict=True):
        at = 10.0**height if logarithmic else height
        axes.annotate(text, (1.012, at), xycoords=("axes fraction", "data"), color=color, va="center", fontsize=8.5, annotation_clip=False)


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return growing heights that are at least `gap` apart and as near to the given ones as a pass up and a pass down bring them."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    top = high
    for place in range(len(moved) - 1, -1, -1):
        moved[place] = min(moved[place], top)
        top = moved[place] - gap
    return moved
