"""The predictive distribution of a regression on the queries of one task, and the figures that describe it."""

from __future__ import annotations

from torch import Tensor

from metarun.layers.precision import at_least_float32
from metarun.predictive import Predictive, coverage, joint_nll, nll, spread
from metarun.types import Adapted, Examples, Learner, WithDistribution, WithSamples


def has_fitted_variance(algorithm: Learner) -> bool:
    """Return whether the likelihood of a regression needs a fitted variance; False where the algorithm returns a distribution alone."""
    return isinstance(algorithm, WithSamples) or not isinstance(algorithm, WithDistribution)


def samples_of(algorithm: Learner, adapted: Adapted, query: Examples, output: Tensor | None = None) -> Tensor:
    """Return the outputs (S, B, D) whose mixture is the prediction: S outputs of `sampled`, or the one output of `predict`.

    output: the result of `predict`, where the caller has it already.
    """
    if isinstance(algorithm, WithSamples):
        return algorithm.sampled(adapted, query.x, query.mask)
    return at_least_float32(algorithm.predict(adapted, query.x, query.mask) if output is None else output)[None]


def predictive_of(
    algorithm: Learner, adapted: Adapted, query: Examples, variance: Tensor | None, output: Tensor | None = None
) -> Predictive | None:
    """Return the distribution that likelihood, coverage and spread describe; None where it needs a variance and there is none.

    variance: of the observations, fitted; unused where the algorithm returns a distribution alone. output: as in `samples_of`.
    """
    if isinstance(algorithm, WithDistribution) and not has_fitted_variance(algorithm):
        found = algorithm.distribution(adapted, query.x, query.mask)
        return Predictive(*(None if part is None else at_least_float32(part) for part in found))  # type: ignore[arg-type]
    if variance is None:
        return None
    return Predictive.around(samples_of(algorithm, adapted, query, output), variance.to(query.y.dtype))


def regression_figures(algorithm: Learner, adapted: Adapted, query: Examples, output: Tensor, variance: Tensor | None) -> dict[str, Tensor]:
    """Return likelihoods, coverage and spread of the predictive distribution, and the likelihood under the algorithm's own distribution.

    output: of `predict`. variance: as in `predictive_of`. A figure that the algorithm or the missing variance rules out is left out.
    """
    figures = {}
    predicted = predictive_of(algorithm, adapted, query, variance, output)
    if predicted is not None:
        figures["nll"] = nll(predicted, query.y, query.mask)
        figures["joint_nll"] = joint_nll(predicted, query.y, query.mask)
        figures["coverage90"] = coverage(predicted, query.y, query.mask, level=0.9)
        figures["spread"] = spread(predicted, query.mask)
    if isinstance(algorithm, WithDistribution):
        own = predicted if predicted is not None and not has_fitted_variance(algorithm) else None
        own = algorithm.distribution(adapted, query.x, query.mask) if own is None else own
        figures["own_nll"] = nll(own, query.y, query.mask)
    return figures
