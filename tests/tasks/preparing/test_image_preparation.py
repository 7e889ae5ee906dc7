from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarun.errors import UserError
from metarun.tasks.folder import folder
from metarun.tasks.preparing.image_preparation import ImagePreparation


def photograph(number: int, width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(number)
    channels = len(Image.new(mode, (1, 1)).getbands())
    return Image.fromarray(generator.integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze())


def photographs(root: Path) -> list[Path]:
    """Write 6 classes of 3 images of several formats and modes; return their paths."""
    paths = []
    for label in range(6):
        (root / f"class {label}").mkdir(parents=True)
        for number, (ending, mode) in enumerate((("jpg", "RGB"), ("png", "RGBA"), ("PNG", "L"))):
            paths.append(root / f"class {label}" / f"{number}.{ending}")
            picture = photograph(10 * label + number, 300 if ending == "jpg" else 60, 200, mode)
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.save(paths[-1], exif=exif) if ending == "jpg" else picture.save(paths[-1])
    return paths


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_in_every_form_become_the_values_that_the_source_deals(tmp_path: Path, channels: int):
    paths = photographs(tmp_path)
    source = folder(root=str(tmp_path), image_size=16, channels=channels, split=[2, 2, 2], ways=2, shots=1, queries=1)
    prepared = ImagePreparation(16, channels)
    names = {f"class {label}": index for index, label in enumerate(range(6))}
    for pool in source.pools.values():
        for place, name in enumerate(pool.names):
            wanted = pool.values(torch.arange(3 * place, 3 * place + 3))
            own = sorted(paths[3 * names[name] : 3 * names[name] + 3])
            lazily = [Image.open(path) for path in own]
            arrays = (np.array(list(map(str, own))), np.array(own, dtype=object))
            for given in (own, [str(path) for path in own], *arrays, [path.read_bytes() for path in own], lazily):
                torch.testing.assert_close(prepared.inputs(given), wanted, rtol=0, atol=0)
            assert [image.size for image in lazily if image.format == "JPEG"] == [(300, 200)], "the user's images stay as they are"
            for image in lazily:
                image.close()


def test_pixels_in_memory_are_resized_and_cropped_like_those_of_a_file():
    picture = photograph(3)
    file = io.BytesIO()
    picture.save(file, "PNG")
    prepared = ImagePreparation(16, 3)
    wanted = prepared.inputs(file.getvalue())
    array = np.asarray(picture)
    for given in (picture, array[None], [array], [torch.from_numpy(array.transpose(2, 0, 1).copy())]):
        torch.testing.assert_close(prepared.inputs(given), wanted, rtol=0, atol=0)
    grey = ImagePreparation(16, 1)
    torch.testing.assert_close(grey.inputs(np.asarray(picture.convert("L"))[None]), grey.inputs(picture), rtol=0, atol=0)


def test_ink_is_1_where_the_preparation_is_inverted():
    paper = np.full((1, 20, 20), 255, dtype=np.uint8)
    paper[0, :, 10:] = 0
    values = ImagePreparation(20, 1, inverted=True).inputs(paper)
    assert (values[0, 0, 0, 0], values[0, 0, 0, -1]) == (0, 1)


def test_floats_of_the_networks_shape_pass_through():
    values = torch.rand(3, 1, 8, 8)
    prepared = ImagePreparation(8, 1, inverted=True)
    torch.testing.assert_close(prepared.inputs(values), values, rtol=0, atol=0)
    torch.testing.assert_close(prepared.inputs(list(values.numpy())), values, rtol=0, atol=0)
    torch.testing.assert_close(prepared.inputs(values[0]), values[:1], rtol=0, atol=0)
    assert not prepared.inputs(values.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "no images"),
        (3, "x is a int"),
        ({"a": 1}, "x is a dict"),
        (np.zeros((8, 8), np.uint8), "an axis of examples"),
        (torch.zeros(2, 8, 8, 3), r"shape \(1, 8, 8\) of the network's inputs, and yours have \(2, 8, 8, 3\)"),
        (torch.full((2, 1, 8, 8), 200.0), r"values in \[0, 1\], and yours have values from 200 to 200"),
        (torch.full((2, 1, 8, 8), float("nan")), r"values in \[0, 1\]"),
        ([np.zeros((8, 8), np.int64)], "image 0 .its values have the type int64"),
        ([np.zeros((8, 8, 7), np.uint8)], r"image 0 .its shape \(8, 8, 7\) is no image's"),
        ([b"%PDF-1.4"], "image 0 .PDF; convert its pages to PNG"),
        (["nowhere.png"], "'nowhere.png' .No such file or directory"),
        ([None], "image 0 .a NoneType is no image"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_that_are_no_pictures_are_one_sentence(given: object, sentence: str):
    with pytest.raises(UserError, match=sentence) as caught:
        ImagePreparation(8, 1).inputs(given)
    assert "\n" not in str(caught.value)


def test_all_pictures_that_cannot_be_read_are_named_at_once(tmp_path: Path):
    good, *bad = (tmp_path / f"{name}.png" for name in "abc")
    photograph(0).save(good)
    for path in bad:
        path.write_bytes(b"GIF8")
    with pytest.raises(UserError, match=r"cannot read 2 of 3 images: .*b\.png' \(a damaged GIF file\), .*c\.png' \("):
        ImagePreparation(8, 1).inputs([good, *bad])
