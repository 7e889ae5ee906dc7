"""An error in the user's code shows the user's frames."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from metarun.cli.tracebacks import WHOLE, brief, is_own, told, trust
from metarun.functional import map_tasks


def module(path: Path, text: str) -> ModuleType:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def raised(run: object, *args: object) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run(*args)  # type: ignore[operator]
    return caught.value


NET = """import torch

def forward(x):
    return helper(x)

def helper(x):
    return torch.ones(2) @ torch.ones(3)
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WHOLE, raising=False)


def test_the_users_frames_stand_first_and_those_of_metarun_and_torch_are_cut(tmp_path: Path) -> None:
    """The user's function runs inside of metarun's map over tasks, and fails inside of torch."""
    net = module(tmp_path / "own_net.py", NET)
    lines = told(raised(map_tasks, net.forward, torch.ones(2, 3)))
    assert lines[0] == "metarun: an error in your code:"
    files = [line.strip() for line in lines if line.strip().startswith("File ")]
    assert files == [f'File "{tmp_path}/own_net.py", line {n}, in {name}' for n, name in ((4, "forward"), (7, "helper"))]
    assert any(line.startswith("RuntimeError: ") for line in lines)
    assert WHOLE in lines[-1]
    assert not any("site-packages" in line or "functional.py" in line for line in lines)


def test_the_whole_traceback_is_there_for_those_who_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = module(tmp_path / "own_net.py", NET)
    monkeypatch.setenv(WHOLE, "1")
    lines = told(raised(map_tasks, net.forward, torch.ones(2, 3)))
    assert lines[0] == "Traceback (most recent call last):"
    assert any("functional.py" in line for line in lines)


def test_a_bug_of_metarun_keeps_its_traceback() -> None:
    lines = told(raised(map_tasks, torch.linalg.inv, torch.ones(2, 3)))
    assert lines[0] == "Traceback (most recent call last):"


def test_a_cause_in_the_users_code_is_found(tmp_path: Path) -> None:
    """metarun raises an error of its own, whose cause is the user's."""
    net = module(tmp_path / "own_net.py", "def forward(x):\n    raise KeyError('no such item')\n")
    error = RuntimeError("the step failed")
    error.__cause__ = raised(map_tasks, net.forward, torch.ones(2, 3))
    lines = told(error)
    assert [line for line in lines if "own_net.py" in line]
    assert "KeyError: 'no such item'" in lines
    assert "RuntimeError: the step failed" in lines
    assert brief(error) == "RuntimeError: the step failed (own_net.py, line 2)"


def test_notes_stay_with_the_error(tmp_path: Path) -> None:
    net = module(tmp_path / "own_net.py", NET)
    error = raised(map_tasks, net.forward, torch.ones(2, 3))
    error.add_note("The run folder is runs/1")
    assert "The run folder is runs/1" in told(error)


def test_an_installed_package_is_the_users_where_the_config_names_it() -> None:
    own, other = "/v/lib/python3.11/site-packages/own_plugin/net.py", "/v/lib/python3.11/site-packages/torch/nn/x.py"
    assert not is_own(own)
    trust(["own_plugin"])
    assert (is_own(own), is_own(other)) == (True, False)
    assert not is_own("<eval_with_key>.1")
    assert not is_own(sys.modules["json"].__file__ or "")
    assert is_own("/home/me/net.py")
