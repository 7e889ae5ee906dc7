"""`abstain=RATE`: reject queries that belong to no support class, and measure how many queries the threshold rejects."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from metarun.commands.calibration import EPISODES, calibrate, store, stored
from metarun.commands.model import Model
from metarun.commands.overrides import check_data
from metarun.commands.trained import Trained
from metarun.compute.device import place
from metarun.compute.memory import allocating
from metarun.engine.rejection import Calibration, Rejection, choose
from metarun.engine.training import Settings
from metarun.errors import UserError, counted
from metarun.files.run_folder import CHECKPOINTS
from metarun.records import checkpoint
from metarun.records.progress import Progress
from metarun.tasks.converted import fit_images
from metarun.tasks.fingerprint import differences, fingerprint_of
from metarun.tasks.pool import ClassPool
from metarun.tasks.preparing.preparation import ArrayPreparation, preparation_by
from metarun.tasks.sampling import FewShot
from metarun.tasks.stream import Streams
from metarun.types import adapts_backbone
from metarun.wiring.build import Parts, build_source
from metarun.wiring.shapes import Shapes
from metarun.wiring.streams import has_source

log = logging.getLogger(__name__)

LEAST_STEPS = 100
"""Runs of fewer steps store no calibration."""

STORED, SIZES = 40, ((5, 1), (5, 5), (20, 1), (20, 5))
"""The number of episodes of a stored calibration, and the ways and shots that get one, besides those of the validation.

An algorithm that adapts the backbone takes longer, so it gets a calibration for the sizes of the validation only.
"""


class Abstention(NamedTuple):
    """The answer to `abstain=RATE`. rate: as asked. origin: where the calibration is from. notes: sentences about its data."""

    rate: float
    choice: Rejection
    calibration: Calibration
    origin: str
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The threshold's shares of rejected queries, for a person."""
        choice, sizes = self.choice, self.calibration
        shots = f"{sizes.shots:g} shot{'' if sizes.shots == 1 else 's'}" if sizes.shots % 1 == 0 else f"{sizes.shots:.1f} shots on average"
        interval = (
            f"95 % interval over {counted(choice.episodes, 'episode')} of {sizes.ways} ways and {shots}, {sizes.classes} validation classes"
        )
        rejected = f"{_percent(choice.true)} of the queries of known classes and {_percent(choice.foreign)} of those of other classes"
        pairs = f"a query of a known class has the higher {choice.score} in {100 * choice.separation[choice.score]:.0f} % of the pairs"
        threshold = f"on validation classes, a threshold on the {choice.score} rejects {rejected}"
        return [*self.notes, f"abstain={self.rate:g}: {threshold} ({interval} {self.origin}; {pairs})"]

    @property
    def facts(self) -> dict[str, Any]:
        """The same for report.json."""
        choice, sizes = self.choice, self.calibration
        return {
            "rate": self.rate,
            "score": choice.score,
            "threshold": choice.threshold,
            "separation": choice.separation,
            "validation": {
                "true_rejected": choice.true._asdict(),
                "foreign_rejected": choice.foreign._asdict(),
                "ci95_over": "episodes",
                "episodes": choice.episodes,
                "ways": sizes.ways,
                "shots": sizes.shots,
                "classes": sizes.classes,
                "origin": self.origin,
            },
        }


def abstention(model: Model, rate: float, shots: Sequence[int]) -> Abstention:
    """Return the threshold that rejects `rate` of the queries of known classes, chosen on validation classes.

    shots: the number of known images of each support class. If the training data are there, the episodes have these sizes; otherwise
    they have the nearest sizes that the training stored in its run folder. Raises UserError where there is neither.
    """
    notes: list[str] = []
    has_file = not has_source(model.members[0].config["task"])  # a training on a stream stores none
    try:
        pool = _validation_pool(model, notes)
        with Progress(EPISODES, unit="episode") as progress:
            found = calibrate(_taking_prepared(model), pool, shots, EPISODES, progress.update)
        why = f"the training has {len(pool.names)} validation classes, and abstain needs at least 3 with 2 images each"
        remedy = "Leave out abstain."
    except UserError as error:
        found, why = None, str(error).rstrip(".")
        remedy = f"Put the data{' or the file' if has_file else ''} back, or leave out abstain."
    if found is not None:
        return Abstention(rate, choose(found, rate), found, "in the data of the training", tuple(notes))
    if len(model.members) == 1:
        found = stored(_run_of(model.paths[0]), model.members[0].step, shots)
    if found is None:
        needed = "the validation classes of the training"
        if has_file:
            needed += f", or calibration.json, which a finished training of at least {LEAST_STEPS} steps writes into its run folder"
        raise UserError(f"abstain={rate:g} needs {needed}: {why}. {remedy}")
    wanted = (len(shots), sum(shots) / len(shots))
    if wanted != (found.ways, found.shots):
        notes = [f"the support set has {wanted[0]} classes of {wanted[1]:.3g} images; metarun takes the nearest stored calibration"]
    return Abstention(rate, choose(found, rate), found, "stored by the training", tuple(notes))


def _validation_pool(model: Model, notes: list[str]) -> ClassPool:
    """Return the validation classes of the training; UserError where its data are gone or cannot be read."""
    member = model.members[0]
    config = copy.deepcopy(member.config)
    check_data(config, config)
    with allocating("the data of the task", "leave out abstain"):
        source = build_source(config)
    if isinstance(source, Streams):
        source = source.source
    if not isinstance(source, FewShot) or "val" not in source.pools:
        raise UserError("the task of this run has no validation classes")
    if changed := differences(member.data, fingerprint_of(source)):
        notes.append(f"the training data have changed: {', '.join(changed)}.")
    return fit_images(replace(source, pools={"val": source.pools["val"]}), model.shapes.inputs).pools["val"]


def _taking_prepared(model: Model) -> Model:
    """Return the model for inputs as its source deals them: pixels in [0, 1], or features."""
    return replace(model, preparation=ArrayPreparation(tuple(model.shapes.inputs)))


def _run_of(path: Path) -> Path:
    """Return the run folder of a checkpoint."""
    return path.parent.parent if path.parent.name == CHECKPOINTS else path.parent


def keep_calibration(parts: Parts, settings: Settings, best: Mapping[str, Any] | None, folder: Path) -> None:
    """Store calibrations of the best checkpoint of a finished training of images in its run folder.

    Together they take about as long as one validation. If a calibration is impossible, the log says so; the training is complete anyway.
    """
    source, file = parts.source, folder / CHECKPOINTS / checkpoint.BEST
    if not (isinstance(source, FewShot) and best and settings.steps >= LEAST_STEPS and file.is_file()):
        return
    member, preparation = checkpoint.load(file), preparation_by(source)
    if preparation is None:
        return
    trained = Trained(parts.algorithm, place(member.params, settings.device), place(member.state, settings.device))
    model = _taking_prepared(Model(trained, parts, Shapes.of(source), preparation, None, (file,), (member,)))
    pool = source.pools["val"].to("cpu")
    try:
        found = [calibrate(model, pool, [shots] * ways, episodes) for ways, shots, episodes in _stored_sizes(model, source, settings)]
    except UserError as error:
        log.warning("abstain= of metarun predict will need the data of this training: %s", error)
        return
    store([each for each in found if each is not None], member.step, folder)


def _stored_sizes(model: Model, source: FewShot, settings: Settings) -> list[tuple[int, int, int]]:
    """Return ways, shots and episodes of each calibration that a training stores: the sizes of the validation, and others of `SIZES`."""
    shape, classes, episodes = source.shape("val"), len(source.pools["val"].names), min(STORED, settings.eval_episodes)
    most = min(model.ways or classes, max(2, classes - 1))
    others = () if adapts_backbone(model.parts.algorithm) else SIZES
    pictures = settings.eval_episodes * shape.ways * (shape.shots + shape.queries)  # of one validation
    sizes = list[tuple[int, int, int]]()
    for ways, shots in dict.fromkeys((min(ways, most), shots) for ways, shots in ((shape.ways, shape.shots), *others)):
        pictures -= episodes * ways * (shots + 6)  # about 3 queries of each class, and of as many foreign ones
        if not sizes or pictures >= 0:
            sizes.append((ways, shots, episodes))
    return sizes


def _percent(rate: Any) -> str:
    return f"{100 * rate.mean:.1f} % ± {100 * rate.ci95:.1f}"
