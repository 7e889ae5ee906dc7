"""metarun: an experiment runner for meta-learning.

    import metarun

    run = metarun.train(algo="protonet", task="glyphs", steps=100)
    model = metarun.load(run["folder"])
    predictor = model.adapt(x, y)
    predictor.predict(other), predictor.predict_proba(other)

`import metarun` is cheap: the functions import torch and Hydra at their first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Model", "Predictor", "UserError", "__version__", "evaluate", "load", "train"]

if TYPE_CHECKING:
    from metarun.cli.interface import evaluate, train
    from metarun.commands.model import Model, Predictor, load
    from metarun.errors import UserError

_PLACES = {
    "Model": "metarun.commands.model",
    "Predictor": "metarun.commands.model",
    "UserError": "metarun.errors",
    "evaluate": "metarun.cli.interface",
    "load": "metarun.commands.model",
    "train": "metarun.cli.interface",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'metarun' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
