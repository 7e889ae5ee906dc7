"""The sentences about copies in a form that metarun does not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.tasks.archives import explain


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.tar.gz", "an archive"),
        ("A.TGZ", "an archive"),
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


def test_folders_and_zips_pass(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"x")
    for place in (tmp_path, tmp_path / "x.zip", tmp_path / "absent.tgz"):
        explain(place)
    explain(tmp_path, nothing_found=True)
