"""The keys of `train.yaml`, `eval.yaml` and `predict.yaml` that no constructor takes, with their ranges. This module imports no torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from metarun.errors import UserError
from metarun.values import Count, Episodes, Few, FewOrZero, Keys, Names, NormMode, NotNegative, Range, Seed, Text
from metarun.wiring.fitting import annotations_of, fit, fit_keys

Overlap = Literal["refuse", "allow"]


@dataclass(frozen=True)
class Claim:
    """The published score of an experiment: the key `reproduce`.

    eval: the protocol, as overrides of `metarun eval`. published, ci95: the score and half its interval, in the metric's unit (accuracy in
    [0, 1]), or None if not published. source: the paper and table. recalled: True if nobody read the source again for this project.
    tolerance: a score that is worse by at most this much counts as reproduced. diverged: the most tasks, of each run, that may diverge.
    differences: of the protocols, one sentence each. An experiment gives them as a mapping from the key that differs to the sentence, or
    as a list; null removes an inherited sentence.
    """

    eval: Mapping[str, Any] = field(default_factory=dict)
    metric: Literal["accuracy", "mse"] = "accuracy"
    published: NotNegative | None = None
    ci95: NotNegative | None = None
    source: str = ""
    recalled: bool = False
    tolerance: NotNegative = 0.01
    diverged: FewOrZero = 0
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainKeys:
    """The keys of `metarun train` beside those of `metarun.engine.training.Settings`."""

    init_from: Text | None
    reproduce: Mapping[str, Any] | None
    overlap: Overlap
    resume: Text | None
    trust: Sequence[Text]


@dataclass(frozen=True)
class EvalKeys:
    """The keys of `metarun eval`."""

    checkpoint: Text | Names
    split: Literal["train", "val", "test"]
    episodes: Episodes
    seed: Seed
    best: Few
    ensemble: bool
    overlap: Overlap
    inner_steps: FewOrZero | None
    by_step: Literal["all", "thin", "last"]
    norm: NormMode | None
    save: Text | None
    trust: Sequence[Text]


@dataclass(frozen=True)
class PredictKeys:
    """The keys of `metarun predict`."""

    checkpoint: Text | Names
    support: Text
    query: Text | None
    top: Count | None
    user: Mapping[str, Any] | None
    out: Text | None
    abstain: Annotated[float, Range(above=0, below=1)] | None
    trust: Sequence[Text]


def check_train(config: Mapping[str, Any]) -> None:
    """Check the keys of `metarun train` that no constructor takes; of a resumed run, those that the user typed."""
    typed = fit_keys({**config, **config.get("overrides", {})}, annotations_of(TrainKeys))
    claim_of(typed.get("reproduce") or {})


def check_evaluation_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of an evaluation with its keys checked; refuse overrides that it does not read (`check_typed`)."""
    check_typed(config.get("typed", ()))
    fitted = fit_keys(config, annotations_of(EvalKeys))
    if missing := [key for key in ("checkpoint", "split", "episodes", "seed") if key not in config]:
        raise UserError(f"the config has no key '{missing[0]}'; `metarun eval` needs the keys of its own eval.yaml.")
    return fitted


def check_prediction_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of `metarun predict` with its keys checked."""
    return fit_keys(config, annotations_of(PredictKeys))


def check_typed(typed: Collection[str]) -> None:
    """Raise UserError for an override of `metarun eval` that would have no effect. typed: the dotted keys of the overrides."""
    known = {"algo", "task", "backbone", "device", *annotations_of(EvalKeys)}
    for key in typed:
        if re.split(r"[./@]", key)[0] not in known:
            raise UserError(f"metarun eval does not read '{key}', which is for training; leave it out.")
        if key.startswith("algo.recipe"):
            raise UserError(f"'{key}' only sets defaults of a training; name the key itself, such as backbone.norm or task.shots.")


def claim_of(content: Mapping[str, Any]) -> Claim:
    """Return the key `reproduce` of an experiment; UserError for an unknown key or a value of the wrong type."""
    given = fit(content.get("differences"), Mapping[str, str | None] | Sequence[str] | None, "reproduce.differences") or ()
    content = {**content, "differences": _sentences(given)}
    return Claim(**fit(content, Annotated[Mapping[str, Any], Keys(Claim)], "reproduce"))


def _sentences(differences: Mapping[str, str | None] | Sequence[str]) -> tuple[str, ...]:
    """Return the differences as sentences; those of a mapping begin with their key."""
    if isinstance(differences, Mapping):
        return tuple(f"{key}: {sentence}" for key, sentence in differences.items() if sentence)
    return tuple(differences)
