"""Early stopping: a training ends when `patience` validations in a row bring no better score."""

from __future__ import annotations

from typing import Any

from metarun.errors import UserError, counted


def unimproved_after(best: dict[str, Any] | None, step: int, unimproved: int) -> int:
    """Return how many validations in a row brought no better score, after the validation of a step.

    best: `Position.best` after this validation. unimproved: the number before it. An equal score is no better one, and a validation
    without a score counts as one without a better score.
    """
    return 0 if best is not None and best["step"] == step else unimproved + 1


def is_exhausted(patience: int | None, unimproved: int) -> bool:
    """Return whether the training ends here. patience: None for a training that takes all its steps."""
    return patience is not None and unimproved >= patience


def check_patience(patience: int | None, eval_every: int) -> None:
    """Raise UserError where no validation could use up the patience."""
    if patience is not None and eval_every == 0:
        raise UserError(
            f"patience={patience} counts validations, and eval_every=0 allows none before the last step; "
            "give a number of steps as eval_every, or leave patience out."
        )


def check_patience_left(patience: int | None, unimproved: int, step: int) -> None:
    """Raise UserError where a run that is resumed would end at once."""
    if is_exhausted(patience, unimproved):
        raise UserError(
            f"this run ended early at step {step}, since {counted(unimproved, 'validation')} in a row brought no better score, and "
            f"patience={patience}; give a larger patience=, or patience=null for all its steps."
        )


def early_line(step: int, steps: int, unimproved: int) -> str:
    """Return the line that says why a training ended early."""
    return f"ended early at step {step} of {steps}: {counted(unimproved, 'validation')} in a row brought no better score"
