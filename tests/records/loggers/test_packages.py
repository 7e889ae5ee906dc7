"""Optional packages, and figures as images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.records.loggers.logger import RunStart
from metarun.records.loggers.mlflow import MLflow
from metarun.records.loggers.packages import package, picture_of
from metarun.records.loggers.trackio import Trackio
from metarun.records.loggers.wandb import WandB


def test_an_installed_package_is_imported() -> None:
    assert package("json", "json") is sys.modules["json"]


@pytest.mark.parametrize(("name", "logger"), [("wandb", WandB()), ("mlflow", MLflow()), ("trackio", Trackio())])
def test_a_missing_package_is_one_sentence_with_the_command_that_installs_it(
    name: str, logger: WandB | MLflow | Trackio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"^logger={name} needs the package {name}; install it with: pip install 'metarun\[{name}\]'$"):
        logger.start(RunStart(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_package_whose_own_import_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"cannot import the package broken_package .*a_module_that_nobody_has"):
        package("broken_package", "extra")


def test_a_figure_becomes_an_image_of_its_own_size() -> None:
    from matplotlib.figure import Figure

    image = picture_of(Figure(figsize=(3, 2), dpi=50, facecolor="red"))
    assert (image.size, image.mode, image.getpixel((5, 5))) == ((150, 100), "RGB", (255, 0, 0))
