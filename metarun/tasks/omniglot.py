"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each (Lake, Salakhutdinov and Tenenbaum, Science 2015).

Ink is 1 and paper 0 unless `ink=0`, resized from 105x105 by Lanczos as in MAML's published preparation. Images turned by 90, 180
and 270 degrees (anticlockwise) count as new classes where a split has them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from metarun import draws
from metarun.errors import UserError, first_line, nearest, printable
from metarun.files.cache import cache_folder
from metarun.files.paths import expanded
from metarun.tasks.fingerprint import Fingerprint, joined, of_images
from metarun.tasks.pictures.downloading import download as download_set
from metarun.tasks.pictures.image_files import ImageFiles, find_images
from metarun.tasks.pictures.images import read_images
from metarun.tasks.pool import SPLITS, ClassPool
from metarun.tasks.sampling import FewShot, Sampling
from metarun.values import Pixels, Seed, Text

PARTS = {"images_background": 964, "images_evaluation": 659}
"""The two official archives and their characters."""

DRAWINGS = 20

LAKE_VALIDATION = ("Balinese", "Bengali", "Burmese_(Myanmar)", "Cyrillic", "Tagalog")
"""The background alphabets held back for validation: the first 5 of the permutation of the 30 sorted ones by (0, "omniglot", "lake")."""

COUNTS = {"train": 1100, "val": 100, "test": 423}
"""Characters of each split of `random1200`: Matching Networks' 1200/423 with 100 of the 1200 held back, as in MAML's code."""


class Character(NamedTuple):
    """One class: a character, its quarter turns (0 to 3, anticlockwise), and where its 20 drawings start in the tensor."""

    alphabet: str
    name: str
    turns: int
    row: int

    @property
    def label(self) -> str:
        """The class as the Vinyals lists call it."""
        return f"{self.alphabet}/{self.name}/rot{90 * self.turns:03d}"

    @property
    def group(self) -> str:
        """The alphabet; a turned one is an alphabet of its own."""
        return self.alphabet if self.turns == 0 else f"{self.alphabet}/rot{90 * self.turns:03d}"


def omniglot(
    *,
    root: Text | None = None,
    download: bool = False,
    split: Literal["random1200", "vinyals", "lake"] = "random1200",
    split_seed: Seed = 1,
    image_size: Pixels = 28,
    rotations: Mapping[str, bool] | None = None,
    ink: Literal[0, 1] = 1,
    **sampling: Sampling,
) -> FewShot:
    """Deal episodes of Omniglot, images (1, image_size, image_size).

    root: a folder with images_background and images_evaluation, each as the official zip or extracted; by default
        $METARUN_DATA/omniglot if $METARUN_DATA is set, else the cache folder, into which `download` fetches Omniglot through torchvision.
    split: "random1200" permutes the sorted characters under `split_seed` and cuts them into 1100/100/423. "lake" trains on the
        background set without the alphabets of `LAKE_VALIDATION`, validates on these alphabets, and tests on the evaluation set.
        "vinyals" reads the classes from root/splits_vinyals/{train,val,test}.txt, with lines such as Angelic/character01/rot090.
    rotations: split -> whether the three turned copies of each character are classes too. The default is every split, as in
        MAML. With "vinyals" the lists name the turned classes, and False leaves these classes out.
    ink: the value of ink, 1 or 0; paper has the other one. The files have ink 0 on paper 1. MAML's and ProtoNet's released code invert
        the drawings, and Reptile's takes them as they are.
    sampling: ways, shots, … of `FewShot`. The groups of `within_groups` are the alphabets; a turned alphabet is a group of
        its own. `within_groups` leaves out alphabets with fewer characters than the ways.

    Raises UserError if the data are absent or incomplete, or if a character would be in two splits.
    """
    turned = {"train": True, "val": True, "test": True} | dict(rotations or {})
    if unknown := set(turned) - set(SPLITS):
        raise UserError(f"task.rotations has no split '{min(unknown)}'; the splits are {', '.join(SPLITS)}.")
    folder = _locate(root, download)
    images, parts, known = _read(folder, image_size, ink)
    classes = _divide(split, folder, parts, split_seed, turned)
    _refuse_overlap(split, classes)
    return FewShot(
        {name: _pool(images, chosen, inverted=bool(ink)) for name, chosen in classes.items()}, data="omniglot", files=known, **sampling
    )


def _locate(root: str | None, download: bool) -> Path:
    if root is not None:
        folder = expanded(root)
    elif data := os.environ.get("METARUN_DATA"):
        folder = expanded(data) / "omniglot"
    else:
        folder = cache_folder() / "omniglot"
    # torchvision puts its downloads into the subfolder omniglot-py.
    for candidate in (folder, folder / "omniglot-py"):
        if all(_part(candidate, part) for part in PARTS):
            return candidate
    if download:
        download_set("Omniglot", "Omniglot", folder, [{"background": True}, {"background": False}])
        return _locate(str(folder), download=False)
    raise UserError(
        f"Omniglot is not in '{folder}'; that folder must hold images_background and images_evaluation (zips or folders). Give "
        "task.root=DIR, or download Omniglot: pip install torchvision (a version that fits the installed torch), then task.download=true."
    )


def _part(folder: Path, part: str) -> Path | None:
    return next((path for path in (folder / part, folder / f"{part}.zip") if path.exists()), None)


def _read(folder: Path, size: int, ink: int) -> tuple[Tensor, dict[str, list[Character]], Fingerprint]:
    """Return all drawings, the characters of each part, sorted, and the fingerprint of the files.

    The drawings are uint8 (32460, 1, size, size), ink at 255 or with `ink` 0 at 0.
    """
    tensors, parts, known, row = [], {}, {}, 0
    for part, expected in PARTS.items():
        path = _part(folder, part)
        assert path is not None  # _locate checked that the part exists
        files = find_images(path)
        parts[part] = _characters(files, row, expected)
        known[part] = of_images(files)
        images = read_images(files, size=size, channels=1, name="omniglot")
        tensors.append(images.bitwise_not() if ink else images)
        row += len(files.names)
    return torch.cat(tensors), parts, joined(known)


def _characters(files: ImageFiles, row: int, expected: int) -> list[Character]:
    drawings: dict[tuple[str, str], list[int]] = {}
    for index, name in enumerate(files.names):
        alphabet, character = ["", "", *name.split("/")][-3:-1]
        drawings.setdefault((alphabet, character), []).append(row + index)
    if len(drawings) != expected:
        raise UserError(f"'{files.root}' holds {len(drawings)} characters instead of {expected}; the set is incomplete.")
    for (alphabet, character), rows in drawings.items():
        if len(rows) != DRAWINGS:
            raise UserError(
                f"'{files.root}' holds {len(rows)} drawings of {alphabet}/{character} instead of {DRAWINGS}; the set is incomplete."
            )
    return [Character(alphabet, character, 0, rows[0]) for (alphabet, character), rows in sorted(drawings.items())]


def _divide(
    split: str, folder: Path, parts: Mapping[str, Sequence[Character]], split_seed: int, turned: Mapping[str, bool]
) -> dict[str, list[Character]]:
    if split == "vinyals":
        known = {(character.alphabet, character.name): character for part in parts.values() for character in part}
        lists = {name: _read_list(folder / "splits_vinyals" / f"{name}.txt", known) for name in SPLITS}
        return {name: [character for character in classes if turned[name] or character.turns == 0] for name, classes in lists.items()}
    if split == "random1200":
        upright = random_split([character for part in parts.values() for character in part], split_seed)
    elif split == "lake":
        background, evaluation = parts.values()
        upright = {
            "train": [character for character in background if character.alphabet not in LAKE_VALIDATION],
            "val": [character for character in background if character.alphabet in LAKE_VALIDATION],
            "test": list(evaluation),
        }
    else:
        splits = ("random1200", "vinyals", "lake")
        raise UserError(f"task.split={split} is unknown; the splits are {', '.join(splits)}.{nearest(str(split), splits)}")
    return {
        name: [character._replace(turns=t) for character in classes for t in range(4 if turned[name] else 1)]
        for name, classes in upright.items()
    }


def random_split(characters: Iterable[Character], split_seed: int) -> dict[str, list[Character]]:
    """Permute the sorted characters under `split_seed`, and divide them into 1100/100/423."""
    ordered = sorted(characters)
    order = iter(draws.permutation(draws.key(split_seed, "omniglot", "random1200"), len(ordered)).tolist())
    return {name: [ordered[next(order)] for _ in range(count)] for name, count in COUNTS.items()}


def _read_list(path: Path, known: Mapping[tuple[str, str], Character]) -> list[Character]:
    if not path.is_file():
        raise UserError(f"task.split=vinyals needs the class list '{path}'. Put the lists there, or use task.split=random1200 or lake.")
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the class list '{path}' as text ({first_line(error)}).") from error
    classes = []
    for line in lines:
        alphabet, _, rest = line.partition("/")
        character, _, rotation = rest.partition("/")
        if (alphabet, character) not in known or rotation not in ("rot000", "rot090", "rot180", "rot270"):
            raise UserError(
                f"'{path}' names '{printable(line)}'; a line must be a character of Omniglot with a rotation (Angelic/character01/rot090)."
            )
        classes.append(known[alphabet, character]._replace(turns=int(rotation[3:]) // 90))
    return classes


def _refuse_overlap(split: str, classes: Mapping[str, Sequence[Character]]) -> None:
    """Check that no character, turned or not, is in two splits."""
    seen: dict[tuple[str, str], str] = {}
    for name, members in classes.items():
        for character in members:
            earlier = seen.setdefault((character.alphabet, character.name), name)
            if earlier != name:
                raise UserError(
                    f"task.split={split} has the character {character.alphabet}/{character.name} in {earlier} and in {name}; "
                    "a character must be in one split only."
                )


def _pool(images: Tensor, classes: Sequence[Character], *, inverted: bool) -> ClassPool:
    """Copy the drawings of the classes, and turn them by the classes' turns; upright alphabets come first, each in one piece."""
    classes = sorted(classes, key=lambda character: (character.turns, character.alphabet, character.name))
    rows = torch.tensor([character.row for character in classes])[:, None] + torch.arange(DRAWINGS)
    turns = torch.tensor([character.turns for character in classes])
    drawings = [torch.rot90(images[rows[turns == t].flatten()], t, dims=(-2, -1)) for t in range(4)]
    return ClassPool(
        images=torch.cat(drawings),
        counts=[DRAWINGS] * len(classes),
        names=[character.label for character in classes],
        groups=[character.group for character in classes],
        origins=[f"{character.alphabet}/{character.name}" for character in classes],
        inverted=inverted,
    )
