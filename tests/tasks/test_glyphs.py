"""The built-in letters: their classes and splits, what each picture is made of, and how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metarun.errors import UserError
from metarun.tasks.glyphs import FACES, Draws, draw_all, glyphs, letters, load_faces, master, pools, sample_draws, warp
from metarun.tasks.sampling import FewShot


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def few(cache: Path) -> FewShot:
    """Four pictures of each letter, which is quick to draw."""
    return glyphs(samples=4, queries=3)


def test_the_1126_letters_are_split_by_script_without_overlap() -> None:
    made = pools(torch.empty(1126 * 20, 1, 28, 28, dtype=torch.uint8))
    assert {split: len(pool.names) for split, pool in made.items()} == {"train": 807, "val": 116, "test": 203}
    assert len({name for pool in made.values() for name in pool.names}) == 1126
    scripts = {split: set(pool.groups or []) for split, pool in made.items()}
    assert scripts["train"] == {"Latn", "Cyrl", "Cans", "Arab", "Grek"}
    assert scripts["val"] == {"Armn", "Tfng", "Laoo"}
    assert scripts["test"] == {"Geor", "Hebr", "Lisu", "Nkoo", "Ital", "Ogam", "Copt"}
    assert made["train"].names[0] == "Latn U+0041 A"


def test_each_pool_holds_the_pictures_of_its_own_letters() -> None:
    place = {code: index for index, code in enumerate(code for script in letters().values() for code in script)}
    number = torch.arange(1126).repeat_interleave(2)
    images = torch.stack([number % 256, number // 256], dim=-1).to(torch.uint8).reshape(-1, 1, 1, 2)
    for pool in pools(images).values():
        shown = pool.images.flatten(1).to(torch.int64)
        named = torch.tensor([place[int(name.split()[1][2:], 16)] for name in pool.names])
        assert torch.equal(shown[:, 0] + 256 * shown[:, 1], named.repeat_interleave(2))


def test_the_draws_of_the_first_pictures_are_pinned() -> None:
    """The draws and not the pixels, which differ between FreeType versions. Changing them changes every published score."""
    drawn = sample_draws([0x41, 0x1403], [16, 4], 3)
    assert drawn.face.tolist() == [[1, 4, 15], [0, 2, 0]]
    for field, expected in {
        "rotation": [-0.168705, -0.054205, 0.05072, -0.03317],
        "shear": [-0.120341, 0.055528, 0.049431, -0.064681],
        "scale": [1.057952, 0.948944, 0.947097, 0.911125],
        "shift": [0.579643, 1.97689, -0.445466, -1.773828],
    }.items():
        torch.testing.assert_close(getattr(drawn, field).flatten()[:4], torch.tensor(expected), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(drawn.elastic[1, 2, 1, 3, 0], torch.tensor(-0.211974), atol=1e-6, rtol=1e-5)


def test_the_draws_of_the_first_episodes_are_pinned() -> None:
    source = FewShot(pools(torch.empty(1126 * 20, 1, 1, 1, dtype=torch.uint8)), ways=5, shots=1, queries=1)
    assert {split: source.draw(split, torch.tensor([0]))[0][0].tolist() for split in ("train", "val", "test")} == {
        "train": [[12386, 12388], [11247, 11240], [14976, 14971], [14337, 14333], [4712, 4701]],
        "val": [[120, 135], [1676, 1669], [343, 347], [910, 914], [1753, 1759]],
        "test": [[2227, 2238], [2776, 2774], [2843, 2853], [1304, 1315], [3981, 3999]],
    }


def test_a_picture_depends_on_nothing_but_its_letter_and_number() -> None:
    many, one = sample_draws([0x41, 0x42, 0x43], [16, 8, 4], 20), sample_draws([0x42], [8], 5)
    assert all(torch.equal(a[1, :5], b[0]) for a, b in zip(many, one, strict=True))


def test_the_warps_have_the_spread_of_the_recipe() -> None:
    drawn = sample_draws(range(500), [3] * 500, 20)
    assert drawn.rotation.std() == pytest.approx(math.radians(8), rel=0.05)
    assert drawn.shear.std() == pytest.approx(0.12, rel=0.05)
    assert drawn.elastic.std() == pytest.approx(2.6, rel=0.02)
    for field, low, high in ((drawn.scale, 0.8, 1.1), (drawn.shift, -2.0, 2.0)):
        assert low <= field.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < field.max() < high
    assert torch.bincount(drawn.face.flatten()).tolist() == pytest.approx([3333] * 3, abs=200)


def still(**changed: torch.Tensor) -> Draws:
    """Return the draws of one picture that is not warped, but for what is given."""
    zero = torch.zeros(1)
    plain = Draws(torch.zeros(1, dtype=torch.int64), zero, zero, torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1, 2, 5, 5))
    return plain._replace(**changed)


def a_square(top: int = 24, left: int = 24) -> torch.Tensor:
    out = torch.zeros(1, 64, 64, dtype=torch.uint8)
    out[0, top : top + 16, left : left + 16] = 255
    return out


def centre(picture: torch.Tensor) -> tuple[float, float]:
    """Return the centre of the ink (x, y), in pixels from the middle of the picture."""
    ink, line = picture[0, 0].to(torch.float64), torch.arange(28) - 13.5
    return float((ink.sum(0) * line).sum() / ink.sum()), float((ink.sum(1) * line).sum() / ink.sum())


def test_a_picture_without_a_warp_is_the_master_made_smaller() -> None:
    picture = warp(a_square(), still())
    assert picture.shape == (1, 1, 28, 28)
    assert picture.dtype == torch.uint8
    assert picture.max() == 255
    assert picture.to(torch.float64).sum() / 255 == pytest.approx(16**2 * (28 / 64) ** 2, rel=0.01)
    assert centre(picture) == pytest.approx((0, 0), abs=1e-6)


def test_a_shift_moves_the_ink_by_as_many_pixels() -> None:
    assert centre(warp(a_square(), still(shift=torch.tensor([[2.0, -1.0]])))) == pytest.approx((2.0, -1.0), abs=0.02)


def test_a_scale_stretches_each_axis_by_itself() -> None:
    ink = warp(a_square(), still(scale=torch.tensor([[1.1, 0.8]]))).to(torch.float64).sum() / 255
    assert ink == pytest.approx(1.1 * 0.8 * 16**2 * (28 / 64) ** 2, rel=0.02)


def test_a_rotation_turns_about_the_middle() -> None:
    """A square 16 master pixels to the right of the middle is 7 pixels right; a quarter turn clockwise puts it 7 below."""
    picture = warp(a_square(left=40), still(rotation=torch.tensor([math.pi / 2])))
    assert centre(picture) == pytest.approx((0.0, 7.0), abs=0.05)


def test_a_shear_moves_the_lower_half_sideways() -> None:
    """At 16 master pixels = 7 pixels below the middle, a shear of 0.5 moves by 3.5 pixels to the right."""
    assert centre(warp(a_square(top=40), still(shear=torch.tensor([0.5])))) == pytest.approx((3.5, 7.0), abs=0.05)


def test_an_even_elastic_field_is_a_shift() -> None:
    """B-splines sum to one, so coefficients of 3.2 in x read the master 3.2 pixels further right: the ink moves 1.4 left."""
    elastic = torch.zeros(1, 2, 5, 5)
    elastic[:, 0] = 3.2
    assert centre(warp(a_square(), still(elastic=elastic))) == pytest.approx((-1.4, 0.0), abs=0.05)


def test_a_master_is_a_letter_of_40_pixels_in_the_middle_of_64() -> None:
    font, covered = load_faces()[0]
    assert ord("M") in covered
    for letter in "Ml.":
        rows, columns = (torch.from_numpy(master(font, letter).copy()) > 0).nonzero().unbind(1)
        height, width = (int(axis.max() - axis.min()) + 1 for axis in (rows, columns))
        assert max(height, width) == 40
        assert abs(int(rows.max() + rows.min()) - 63) <= 1
        assert abs(int(columns.max() + columns.min()) - 63) <= 1


def test_every_face_is_used_and_no_face_stands_in_for_a_letter_it_lacks() -> None:
    """Georgian is not in STIX: drawn all the same, it would come out as the face's box for missing letters."""
    faces = load_faces()
    codes = {code for script in letters().values() for code in script}
    assert all(covered & codes for _, covered in faces)
    georgian = set(letters()["Geor"])
    assert [name for name, (_, covered) in zip(FACES, faces, strict=True) if covered & georgian and name.startswith("STIX")] == []


def test_the_pictures_are_white_on_black_and_each_has_ink(few: FewShot) -> None:
    images = torch.cat([pool.images for pool in few.pools.values()])
    assert images.shape == (1126 * 4, 1, 28, 28)
    assert images.flatten(1).max(dim=1).values.min() > 150
    assert (images[..., 0, 0] == 0).float().mean() > 0.99
    assert 0.05 < images.float().mean() / 255 < 0.3


def test_the_second_call_reads_the_cache(few: FewShot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarun.tasks.glyphs.draw_all", lambda *_: pytest.fail("drawn again"))
    again = glyphs(samples=4, queries=3)
    assert torch.equal(again.pools["test"].images, few.pools["test"].images)
    assert torch.equal(again.episode("val", 5).query.x, few.episode("val", 5).query.x)


def test_an_episode_within_a_script_has_letters_of_one_script(few: FewShot) -> None:
    source = FewShot(few.pools, ways=5, queries=3, within_groups=True)
    groups = source.pools["test"].groups
    assert groups is not None
    for rows in source.draw("test", torch.arange(20))[0][..., 0].tolist():
        assert len({groups[row // 4] for row in rows}) == 1


def test_missing_faces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"DejaVuSans\.ttf' is missing; install matplotlib"):
        draw_all(1, str(tmp_path))
