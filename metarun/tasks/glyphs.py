"""Glyphs, the built-in image set: synthetic pictures of 1,126 printed letters of 15 scripts. metarun draws them, without a download.

Each picture is a letter in a random face. A random affine map and a random elastic field warp the letter. Ink is white on black.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, features
from torch import Tensor
from torch.nn import functional

from metarun import draws
from metarun.compute.memory import check_fits
from metarun.errors import UserError
from metarun.files.paths import expanded
from metarun.tasks.pictures.images import cached
from metarun.tasks.pool import ClassPool
from metarun.tasks.sampling import FewShot, Sampling
from metarun.values import Few, Text

SCRIPTS: dict[str, tuple[str, ...]] = {
    "train": ("Latn", "Cyrl", "Cans", "Arab", "Grek"),
    "val": ("Armn", "Tfng", "Laoo"),
    "test": ("Geor", "Hebr", "Lisu", "Nkoo", "Ital", "Ogam", "Copt"),
}
"""The scripts of each split, by ISO 15924 code: 807, 116 and 203 letters."""

FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSans-Oblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSansMono-Oblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "STIXGeneralItalic"),
)
"""The faces in matplotlib's wheel that have any of the letters. Another order would change the draws."""

_RECIPE = 1
"""Part of the cache key; raise it when the code below changes a pixel."""

_DATA_SEED = 0
_SIZE, _MASTER, _FIT, _POINT_SIZE = 28, 64, 40, 96
_KNOTS = 5
_CHUNK = 500


class Draws(NamedTuple):
    """The random values of each picture; every field has leading axes (letters, samples).

    face: index into the faces that have the letter. rotation: radians. shear: horizontal, per unit of height.
    scale: (…, 2) per axis x, y. shift: (…, 2) pixels of the 28x28 picture. elastic: (…, 2, 5, 5) spline coefficients of the
    displacement in x and in y, pixels of the 64x64 master.
    """

    face: Tensor
    rotation: Tensor
    shear: Tensor
    scale: Tensor
    shift: Tensor
    elastic: Tensor


def glyphs(*, samples: Few = 20, root: Text | None = None, **sampling: Sampling) -> FewShot:
    """Deal episodes of synthetic 28x28 letters, images (1, 28, 28), split by script.

    samples: pictures per letter. root: a folder with the DejaVu and STIX faces; None for matplotlib's own folder.
    sampling: ways, shots, … of `metarun.tasks.sampling.FewShot`; the groups of `within_groups` are the scripts.
    metarun draws the pictures once, in seconds, and caches them. Bitmaps may differ in a few grey values between FreeType versions.
    """
    versions = [features.version("freetype2"), metadata.version("pillow"), metadata.version("matplotlib")]
    facts = [_RECIPE, samples, letters(), str(root), *versions]
    shape = (samples * sum(map(len, letters().values())), 1, _SIZE, _SIZE)
    check_fits(math.prod(shape), f"a set of task.samples={samples} pictures of each letter", "lower task.samples")
    return FewShot(pools(cached("glyphs", facts, shape, lambda: draw_all(samples, root).numpy())), data="glyphs", **sampling)


@cache
def letters() -> Mapping[str, Sequence[int]]:
    """Return script -> code points: the letters of the DejaVu faces that are not near duplicates of one another."""
    text = resources.files("metarun.tasks").joinpath("glyph_classes.json").read_text(encoding="utf-8")
    return {script: tuple(int(code, 16) for code in codes) for script, codes in json.loads(text).items()}


def pools(images: Tensor) -> dict[str, ClassPool]:
    """Divide the pictures (1126 * samples, 1, 28, 28), letter by letter in the order of `letters()`, among the splits."""
    samples = len(images) // sum(len(codes) for codes in letters().values())
    sizes = [samples * len(codes) for codes in letters().values()]
    by_script = dict(zip(letters(), images.split_with_sizes(sizes), strict=True))
    out = {}
    for split, scripts in SCRIPTS.items():
        classes = [(script, code) for script in scripts for code in letters()[script]]
        out[split] = ClassPool(
            images=torch.cat([by_script[script] for script in scripts]),
            counts=[samples] * len(classes),
            names=[f"{script} U+{code:04X} {chr(code)}" for script, code in classes],
            groups=[script for script, _ in classes],
        )
    return out


def sample_draws(codes: Sequence[int], faces: Sequence[int], samples: int) -> Draws:
    """Draw the random values of `samples` pictures for each code point. Sample n of a letter is always the same.

    faces: for each code point, how many faces have it.
    """
    key = draws.key(_DATA_SEED, "glyphs", torch.tensor(list(codes))[:, None], torch.arange(samples))
    return Draws(
        face=draws.integers(draws.fold(key, "face"), size=torch.tensor(list(faces))[:, None]),
        rotation=draws.normal(draws.fold(key, "rotation")) * math.radians(8.0),
        shear=draws.normal(draws.fold(key, "shear")) * 0.12,
        scale=draws.uniform(draws.fold(key, "scale"), 2, low=0.8, high=1.1),
        shift=draws.uniform(draws.fold(key, "shift"), 2, low=-2.0, high=2.0),
        elastic=draws.normal(draws.fold(key, "elastic"), 2, _KNOTS, _KNOTS) * 2.6,
    )


def draw_all(samples: int, root: str | None = None) -> Tensor:
    """Draw every letter `samples` times: uint8 (1126 * samples, 1, 28, 28), ink 255 on 0."""
    codes = [code for script in letters().values() for code in script]
    fonts = load_faces(root)
    covering_each = [[face for face, (_, covered) in enumerate(fonts) if code in covered] for code in codes]
    for code, covering in zip(codes, covering_each, strict=True):
        if not covering:
            raise UserError(
                f"none of the faces has the letter U+{code:04X}; install matplotlib from PyPI, whose wheel contains such faces."
            )
    drawn = sample_draws(codes, [len(covering) for covering in covering_each], samples)
    masters = []
    for code, covering, picks in zip(codes, covering_each, drawn.face.tolist(), strict=True):
        by_face = {pick: master(fonts[covering[pick]][0], chr(code)) for pick in set(picks)}
        masters += [by_face[pick] for pick in picks]
    flat = Draws(*(field.flatten(0, 1) for field in drawn))
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(masters), _CHUNK)]
    return torch.cat([warp(torch.from_numpy(np.stack(masters[c])), Draws(*(field[c] for field in flat))) for c in chunks])


def load_faces(root: str | None = None) -> list[tuple[ImageFont.FreeTypeFont, frozenset[int]]]:
    """Open each of `FACES`, and list the code points that it has (FreeType draws a box for any other code point)."""
    from matplotlib import ft2font, get_data_path  # imported here: a cached set needs no fonts, and matplotlib is slow to import

    folder = expanded(root) if root else Path(get_data_path(), "fonts", "ttf")
    fonts = []
    for path in (folder / f"{name}.ttf" for name in FACES):
        if not path.is_file():
            raise UserError(f"'{path}' is missing; install matplotlib from PyPI, or give task.root=DIR, a folder with its fonts.")
        font = ImageFont.truetype(str(path), _POINT_SIZE, layout_engine=ImageFont.Layout.BASIC)
        fonts.append((font, frozenset(ft2font.FT2Font(str(path)).get_charmap())))
    return fonts


def master(font: ImageFont.FreeTypeFont, letter: str) -> np.ndarray:
    """Draw a letter, its longer side 40 pixels, into the middle of a black 64x64 image, uint8 (64, 64)."""
    left, top, right, bottom = (int(edge) for edge in font.getbbox(letter))
    drawn = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(drawn).text((-left, -top), letter, fill=255, font=font)
    drawn = drawn.crop(drawn.getbbox())
    scale = _FIT / max(drawn.size)
    width, height = (max(1, round(side * scale)) for side in drawn.size)
    out = Image.new("L", (_MASTER, _MASTER))
    out.paste(drawn.resize((width, height), Image.Resampling.LANCZOS), ((_MASTER - width) // 2, (_MASTER - height) // 2))
    return np.asarray(out)


def warp(masters: Tensor, drawn: Draws) -> Tensor:
    """Warp masters, uint8 (B, 64, 64), by draws with one leading axis B: uint8 (B, 1, 28, 28).

    The inverse map says where to sample the master. Each picture is sampled at twice its size, and then averaged 2x2.
    """
    steps = 2 * _SIZE
    line = (torch.arange(steps) + 0.5) * (_MASTER / steps) - _MASTER / 2
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    offset = (places - drawn.shift[:, None, None] * (_MASTER / _SIZE)) / drawn.scale[:, None, None]
    offset = torch.stack([offset[..., 0] - drawn.shear[:, None, None] * offset[..., 1], offset[..., 1]], dim=-1)
    cos, sin = drawn.rotation.cos(), drawn.rotation.sin()
    back = torch.stack([torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)], dim=-2)
    basis = _spline_basis(steps)
    field = torch.einsum("yi,bcij,xj->byxc", basis, drawn.elastic, basis)
    grid = (torch.einsum("byxj,bij->byxi", offset, back) + field) / (_MASTER / 2)
    large = functional.grid_sample(masters[:, None].to(torch.float32), grid, mode="bilinear", align_corners=False)
    return functional.avg_pool2d(large, 2).round_().clamp_(0, 255).to(torch.uint8)


def _spline_basis(steps: int) -> Tensor:
    """Return the cubic B-spline of each of 5 knots, spread evenly over the width, at `steps` pixel centres: (steps, 5)."""
    place = (torch.arange(steps) + 0.5) / steps * (_KNOTS - 1)
    distance = (place[:, None] - torch.arange(_KNOTS)).abs()
    near = 2.0 / 3.0 - distance**2 + distance**3 / 2.0
    far = (2.0 - distance).clamp(min=0.0) ** 3 / 6.0
    return torch.where(distance < 1.0, near, far)
