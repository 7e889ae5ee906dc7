"""The best validations of a run, whose checkpoints the run keeps: `best.pt`, and with keep=k a file for each of the k best."""

from __future__ import annotations

from typing import Any

BEST = "best.pt"
STEP_FILES = "step_*.pt"
"""The names of the k best."""


def step_file(step: int) -> str:
    """Return the name of the checkpoint that a run keeps of a validation after `step` outer steps."""
    return STEP_FILES.replace("*", str(step))


def after_validation(best: dict[str, Any] | None, found: dict[str, Any], keep: int, sign: float) -> tuple[dict[str, Any], list[str]]:
    """Return `Position.best` after a validation, and the names under which the run saves the checkpoint of this validation.

    best: `Position.best` so far. found: "score", "step" and more about this validation. keep: k. sign: 1, or -1 where a lower score is
    better. Of two equal scores, the earlier one is better. With k > 1, the entry "kept" lists the k best validations, the best one first.
    """
    earlier = [] if best is None else best.get("kept", [best])
    kept = sorted([*earlier, found], key=lambda each: -sign * each["score"])[:keep]  # a stable sort: the earlier one stays before
    names = [BEST] if kept[0] is found else []
    if keep == 1:
        return kept[0], names
    return {**kept[0], "kept": kept}, names + ([step_file(found["step"])] if found in kept else [])


def kept_files(best: dict[str, Any] | None) -> list[str]:
    """Return the names of the files that a run with this `Position.best` keeps beside `best.pt`, the best one first."""
    return [] if best is None else [step_file(each["step"]) for each in best.get("kept", [])]
