"""What the loggers of optional packages share: importing the package, and drawing a figure as an image."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from metarun.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


def package(name: str, extra: str) -> ModuleType:
    """Import an optional package; raises UserError with the command that installs it. extra: of metarun, that brings the package."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name is not None and error.name.partition(".")[0] == name
        reason = f"needs the package {name}" if missing else f"cannot import the package {name} ({error})"
        raise UserError(f"logger={name} {reason}; install it with: pip install 'metarun[{extra}]'") from error


def picture_of(figure: Figure) -> Image:
    """Draw a figure; return the image in RGB. It touches no global state of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba(), "raw", "RGBA", 0, 1).convert("RGB")
