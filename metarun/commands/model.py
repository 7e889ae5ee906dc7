"""A trained model without its data: load a run, adapt it to the user's examples, and predict."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarun import draws
from metarun.commands.labels import plain_labels
from metarun.commands.overrides import check_data
from metarun.commands.predicting.recommending import Recommendation, added_to, recommended
from metarun.commands.trained import Trained, assemble, load_members
from metarun.compute.device import place
from metarun.compute.memory import allocating
from metarun.engine.likelihood import predictive_of
from metarun.errors import UserError, counted, printable
from metarun.files.paths import paths_of
from metarun.functional import derivatives_on_this_thread, without_map
from metarun.network import network_of
from metarun.predictive import quantile
from metarun.records.checkpoint import Checkpoint
from metarun.tasks.preparing.preparation import Preparation, preparation_by, preparation_of
from metarun.tasks.tables.raw_numbers import rows_of
from metarun.types import Adapted, Examples, traits_of
from metarun.wiring.build import Parts, build, build_without_data
from metarun.wiring.features import with_network
from metarun.wiring.shapes import Shapes, shapes_of

VALUES = 1 << 21
"""The number of query values (B x C x H x W) that go through a network at once, if queries do not affect each other."""
ANY_WAYS = ("protonet", "simpleshot", "matching", "r2d2", "finetune", "cosine_head", "memory", "nearest")
"""The algorithms that take any number of classes, for messages; docs/using.md and docs/transfer.md list the same ones."""


def load(run: Any, trust: Any = (), device: str = "auto", best: int = 1) -> Model:
    """Load a trained model; its data are not needed.

    run: a run folder or a checkpoint, or a list of them, which form an ensemble. trust: the packages besides metarun that the run's config
    may name. device: auto, cpu or cuda. best: the number of best checkpoints to take from each run.

    Raises UserError for files that cannot be used. A checkpoint of an earlier metarun does not say how inputs are prepared, so it needs
    the training data.
    """
    paths, members = load_members(paths_of(run), best, trust)
    first = members[0]
    config = {**first.config, "device": {**first.config["device"], "name": device}}
    if first.shapes:
        shapes = shapes_of(first.shapes, {**first.params, **first.state}, first.config.get("input_shape"))
        columns = shapes.columns["val"] if shapes.objective == "regression" else 0
        preparation = preparation_of(first.preparation, shapes.inputs, columns)
        parts = build_without_data(config, shapes)
        preparation = with_network(preparation, config, parts.device.name)
    else:
        parts, shapes, preparation = _from_data(config, first, paths[0])
    for path, member in zip(paths, members, strict=True):
        if (member.preparation, member.shapes) != (first.preparation, first.shapes):
            raise UserError(f"{path} prepares its inputs in another way than {paths[0]}; the members of an ensemble need the same data.")
    trained = assemble(parts, members)
    name = parts.device.name
    trained = trained._replace(params=place(trained.params, name), state=place(trained.state, name))
    known = [member.variance for member in members]
    variance = None if None in known else float(np.mean(known))  # type: ignore[arg-type]
    return Model(trained, parts, shapes, preparation, variance, tuple(paths), tuple(members))


def _from_data(config: Mapping[str, Any], stored: Checkpoint, path: Path) -> tuple[Parts, Shapes, Preparation]:
    """Return the parts, the shapes and the preparation of a checkpoint that does not have them, from its data."""
    try:
        check_data(config, stored.config)
        parts = build(config)
    except UserError as error:
        raise UserError(
            f"an earlier metarun ({printable(stored.version)}) wrote {path}, which does not say how its inputs are prepared, and its data "
            f"cannot be read: {str(error).rstrip('.')}. Put the data back, or train the run again."
        ) from error
    shapes, found = Shapes.of(parts.source), preparation_by(parts.source)
    columns = shapes.columns["val"] if shapes.objective == "regression" else 0
    return parts, shapes, preparation_of({}, shapes.inputs, columns) if found is None else found


@dataclass(frozen=True)
class Model:
    """A trained model.

    trained: the algorithm with its tensors on the device. parts: the objects of the config. preparation: turns raw examples into inputs.
    variance: of the targets around the predictions, in a regression; None where it is unknown or not needed. paths, members: the
    checkpoints.
    """

    trained: Trained
    parts: Parts
    shapes: Shapes
    preparation: Preparation
    variance: float | None
    paths: tuple[Path, ...]
    members: tuple[Checkpoint, ...]

    @property
    def kind(self) -> str:
        """The kind of task: "classification" or "regression"."""
        return self.shapes.objective

    @property
    def ways(self) -> int | None:
        """The most classes that the model tells apart; None where it takes any number of classes."""
        algorithm = self.parts.algorithm
        traits = traits_of(algorithm)
        fixed = traits.takes_sizes or (traits.head and network_of(algorithm) is not None)
        return self.shapes.columns["val"] if fixed and self.kind == "classification" else None

    def adapt(self, x: Any, y: Any, seed: int = 0) -> Predictor:
        """Adapt to labelled examples, the support set, and return a predictor; the model stays as it is.

        x: B raw inputs, in a form that the preparation takes (`ImagePreparation.inputs`, `TablePreparation.inputs`).
        y: B labels, any hashable values; classes may have different numbers of examples. In regression, B targets in their own unit.
        seed: determines the random draws of the algorithm; they equal those of the first test episode of
        `metarun eval seed=…`. Equal examples and seeds give equal predictions.

        Raises UserError for examples that cannot be read, and for more classes than the head of the model has.
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise UserError(f"seed={seed!r} should be a whole number.")
        classes, targets, flat = self._labels(x, y)
        inputs = self.preparation.inputs(x)
        if len(inputs) != len(targets):
            raise UserError(
                f"x has {counted(len(inputs), 'example')} and y has {len(targets)}; they must have one label or target for each example."
            )
        mask, numbers = None, None
        if self.kind == "classification":
            # Where the head has columns without a class, the mask tells the algorithm that they are absent.
            mask = torch.ones(len(inputs), dtype=torch.bool) if targets.shape[1] > len(classes) else None
            numbers = torch.full((targets.shape[1],), -1) if traits_of(self.parts.algorithm).class_numbers else None
        support = self._placed(Examples(inputs, targets, mask, numbers))
        key = draws.key(int(seed), "evaluate", "test", 0).to(self.parts.device.name)
        with self._computing(f"the adaptation to {counted(len(inputs), 'example')}", "give fewer examples"):
            adapted = self.trained.algorithm.adapt(self.trained.params, self.trained.state, support, key)
        return Predictor(self, adapted, classes, flat, x)

    def _labels(self, x: Any, y: Any) -> tuple[list[Hashable], Tensor, bool]:
        """Return the classes, y as the algorithm takes it, (B, N) or (B, D), and whether the targets have no axis D."""
        if self.kind == "regression":
            added = added_to(self.preparation, x)
            targets = self.preparation.targets(y if added is None else rows_of(y, 1) - added)
            named = isinstance(y, Mapping) or hasattr(y, "columns")
            return [], targets, targets.shape[1] == 1 and not named and np.ndim(y) == 1
        labels = plain_labels(y)
        classes = list(dict.fromkeys(labels))
        if self.ways is not None and len(classes) > self.ways:
            raise UserError(
                f"y has {len(classes)} classes, and this model ({_name(self)}) has a head for {self.ways}; give fewer classes, or "
                f"train an algorithm that takes any number: {', '.join(ANY_WAYS)}."
            )
        place_of = {label: column for column, label in enumerate(classes)}
        columns = torch.eye(self.ways or len(classes))
        return classes, columns[torch.tensor([place_of[label] for label in labels])], False

    def _placed(self, examples: Examples) -> Examples:
        device = self.parts.device.name
        return Examples(*(None if each is None else each.to(device) for each in examples))  # type: ignore[arg-type]

    @contextmanager
    def _computing(self, what: str, remedy: str) -> Iterator[None]:
        """Compute as an evaluation does: without gradients, in the precision of the run."""
        device = self.parts.device
        cast = torch.autocast(device.name.split(":")[0], torch.bfloat16) if device.precision == "bf16" else nullcontext()
        with torch.no_grad(), derivatives_on_this_thread(), without_map(device.loop), cast, allocating(what, remedy):
            yield


@dataclass(frozen=True)
class Predictor:
    """A model that has adapted to a support set.

    classes: the labels, in the order in which the support set first has them; the columns of probabilities have this order. flat: whether
    the targets of a regression are single numbers. known: the raw inputs of the support set.

    A network with norm=batch normalises the queries by their common statistics. A prediction then depends on the other queries of the
    call, as in `metarun eval`, so give all queries in one call. With another norm, large calls are computed in parts.
    """

    model: Model
    adapted: Adapted
    classes: list[Hashable]
    flat: bool = False
    known: Any = None

    def predict(self, x: Any) -> list[Hashable] | np.ndarray:
        """Return a label for each input; in regression the targets in their own unit, (B,), or (B, D) where `adapt` got several."""
        outputs = self.outputs(x)
        if self.model.kind == "regression":
            return self._in_units(outputs, x)
        return [self.classes[place] for place in outputs.argmax(dim=1).tolist()]

    def predict_proba(self, x: Any) -> np.ndarray:
        """Return the probabilities (B, N) of the classes, in the order of `classes`; UserError in regression."""
        if self.model.kind == "regression":
            raise UserError("a regression has no classes, and so no probabilities; `interval` gives ranges of the targets.")
        probabilities: np.ndarray = self.outputs(x).double().softmax(dim=1).numpy()
        return probabilities

    def outputs(self, x: Any) -> Tensor:
        """Return the logits (B, N) of the classes, or the outputs (B, D) as the network was trained to give them."""
        outputs = torch.cat([self._outputs(part) for part in self._parts(x)])
        return outputs[:, : len(self.classes)] if self.model.kind == "classification" else outputs

    def interval(self, x: Any, level: float = 0.9) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the ends of the central interval that holds a target with probability `level`, in the unit of the targets.

        None in classification, and where the model has no distribution. For an algorithm without one, the interval needs the variance in
        the checkpoint, which the first validation of the training measures.
        """
        if not isinstance(level, (float, np.floating)) or not 0 < level < 1:
            raise UserError(f"level={level!r} should be a number above 0 and below 1.")
        if self.model.kind == "classification":
            return None
        ends = [self._ends(part, level) for part in self._parts(x)]
        if None in ends:
            return None
        low, high = (self._in_units(torch.cat(each), x) for each in zip(*ends, strict=True))
        return low, high

    def _outputs(self, inputs: Tensor) -> Tensor:
        with self.model._computing(f"a prediction for {len(inputs)} inputs", "give fewer inputs at once"):
            outputs = self.model.trained.algorithm.predict(self.adapted, inputs.to(self.model.parts.device.name))
        return outputs.float().cpu()

    def _ends(self, inputs: Tensor, level: float) -> tuple[Tensor, Tensor] | None:
        """Return the ends of the intervals of some inputs, (B, D) each, in the unit of the outputs."""
        model, device = self.model, self.model.parts.device.name
        variance = None if model.variance is None else torch.tensor(model.variance, device=device)
        query = model._placed(Examples(inputs, torch.zeros(len(inputs), model.shapes.columns["val"])))
        with model._computing(f"a prediction for {len(inputs)} inputs", "give fewer inputs at once"):
            found = predictive_of(model.trained.algorithm, self.adapted, query, variance)
            if found is None:
                return None
            return quantile(found, 0.5 * (1 - level)).cpu(), quantile(found, 0.5 * (1 + level)).cpu()

    def recommend(self, top: int = 10) -> list[Recommendation]:
        """Return the items with the highest predicted ratings among those that the user has not rated; for a run on task=ratings."""
        return recommended(self.model.preparation, self.known, self.predict, top)

    def _in_units(self, outputs: Tensor, x: Any) -> np.ndarray:
        added, found = added_to(self.model.preparation, x), self.model.preparation.in_units(outputs)
        values: np.ndarray = (found if added is None else found + added).numpy()
        return values[:, 0] if self.flat else values

    def _parts(self, x: Any) -> Iterator[Tensor]:
        """Yield the prepared inputs in parts that fit into memory; in one part where the outputs depend on all inputs."""
        pictures = getattr(self.model.preparation, "images", None)  # a run on features decodes images first
        shapes = (self.model.shapes.inputs, getattr(pictures, "shape", ()))
        size = max(1, VALUES // max(math.prod(shape) for shape in shapes))
        if not stands_alone(self.model):
            yield self.model.preparation.inputs(x)
        elif isinstance(x, (list, tuple)) and len(x) > size:
            for start in range(0, len(x), size):
                yield self.model.preparation.inputs(x[start : start + size])
        else:
            yield from self.model.preparation.inputs(x).split(size)


def stands_alone(model: Model) -> bool:
    """Return whether the outputs of a query do not depend on the other queries, as far as metarun knows the algorithm."""
    algorithm = model.parts.algorithm
    network = network_of(algorithm)
    own = type(algorithm).__module__.startswith("metarun.")
    return own and (network is None or not network.norms or network.norm != "batch")


def _name(model: Model) -> str:
    options = model.members[0].config.get("options") or {}
    return printable(str(options.get("algo") or type(model.parts.algorithm).__name__))
