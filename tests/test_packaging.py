"""The wheel, as a stranger gets it: built from the sdist, installed in a fresh environment, used from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import metarun

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def tree() -> set[str]:
    """Return what must ship, as paths inside the wheel."""
    code = {
        file.relative_to(ROOT)
        for pattern in ("*.py", "*.c", "*.h", "*.json", "*.html", "*.css", "*.js", "py.typed")
        for file in (ROOT / "metarun").rglob(pattern)
    }
    configs = {Path("metarun") / file.relative_to(ROOT) for pattern in ("*.py", "*.yaml") for file in (ROOT / "configs").rglob(pattern)}
    return {path.as_posix() for path in code | configs}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it, out of a copy without leftovers of other builds; needs no network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("metarun", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (file,) = dist.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the metarun of a fresh environment that has the wheel, and the dependencies of the one that runs this test.

    The `.pth` file puts those behind the fresh environment's own packages; `.pth` files of theirs are not read, so an editable
    install of metarun there is not seen.
    """
    fresh = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(fresh))
    python = str(fresh / "bin" / "python")
    purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    outer = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(purelib, "dependencies.pth").write_text("\n".join(sorted(outer)), encoding="utf-8")
    return fresh / "bin" / "metarun"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return tmp_path


def run(*words: str, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "METARUN_DATA")}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(words)} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_wheel_has_every_module_config_and_list(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert shipped == tree()


def test_sdist_has_what_the_wheel_is_made_of(dist: Path) -> None:
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name.removeprefix("metarun/") if name.startswith("metarun/configs/") else name for name in tree()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_installed_package_is_the_wheel(command: Path, empty: Path) -> None:
    where = run(str(command.parent / "python"), "-c", "import metarun; print(metarun.__file__)", cwd=empty).strip()
    assert Path(where).is_relative_to(command.parents[1])
    assert run(str(command), "--version", cwd=empty).strip() == f"metarun {metarun.__version__}"


def test_smoke_run_and_its_evaluation_work_from_an_empty_folder(command: Path, empty: Path) -> None:
    run(str(command), "train", "experiment=smoke", cwd=empty)
    (last,) = empty.glob("outputs/*/*/checkpoints/last.pt")
    folder = last.parents[1]
    assert (folder / "metrics.jsonl").read_text(encoding="utf-8").strip()
    run(str(command), "eval", f"checkpoint={folder}", "episodes=10", cwd=empty)
    (report,) = empty.glob("outputs/*/*/eval/*/report.json")
    facts = json.loads(report.read_text(encoding="utf-8"))
    assert facts["episodes"] == 10
    assert 0.0 <= facts["mean"] <= 1.0


def test_multirun_leaves_a_folder_for_each_combination(command: Path, empty: Path) -> None:
    run(str(command), "train", "-m", "algo=maml,protonet", "seed=0,1", "experiment=smoke", "steps=1", "eval_episodes=2", cwd=empty)
    folders = {file.parents[1] for file in empty.glob("outputs/multirun/*/*/checkpoints/last.pt")}
    assert len(folders) == 4


def test_list_names_the_shipped_options(command: Path, empty: Path) -> None:
    listed = run(str(command), "list", cwd=empty)
    for file in (ROOT / "configs" / "algo").glob("*.yaml"):
        assert file.stem.endswith("_") or file.stem in listed
