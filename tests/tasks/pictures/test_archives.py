"""The sentences about copies in a form that metarun does not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.tasks.pictures.archives import explain


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.7z", "an archive"),
        ("A.GZ", "an archive"),
        ("b.pkl", "a pickle"),
        ("b.pickle", "a pickle"),
        ("c.npz", "not made of image files"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_reason(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"{name}' is {reason}"):
        explain(tmp_path / name)
    explain(tmp_path)  # a folder may hold such files beside its images
    with pytest.raises(UserError, match=f"1 file such as '{name}', {reason}"):
        explain(tmp_path, nothing_found=True)


def test_folders_zips_and_tar_archives_pass(tmp_path: Path) -> None:
    for name in ("x.zip", "y.tgz"):
        (tmp_path / name).write_bytes(b"x")
        explain(tmp_path / name)
    for place in (tmp_path, tmp_path / "absent.pkl"):
        explain(place)
    with pytest.raises(UserError, match=r"2 files such as 'x.zip', an archive; unpack it, or give it as task"):
        explain(tmp_path, nothing_found=True)
    (tmp_path / "empty").mkdir()
    explain(tmp_path / "empty", nothing_found=True)
