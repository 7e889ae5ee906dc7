"""The place of a process, from the variables of a launcher."""

from __future__ import annotations

import pytest

from metarun.errors import UserError
from metarun.processes.launch import Place, launched

FIRST = {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29400"}
TORCHRUN = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "3"}


def test_a_process_without_a_launcher_and_one_that_is_alone_run_as_ever() -> None:
    assert launched({}) is None
    assert launched({**FIRST, "WORLD_SIZE": "1"}) is None
    for name in FIRST:
        assert launched({key: value for key, value in FIRST.items() if key != name}) is None


def test_a_launcher_tells_each_process_its_place() -> None:
    assert launched({**FIRST, **TORCHRUN, "RANK": "3"}) == Place(3, 4, 1, 2, "10.0.0.1", 29400, hosted=True, attempt=3)


def test_without_torchrun_all_processes_are_on_one_machine() -> None:
    assert launched({**FIRST, "RANK": "2"}) == Place(2, 4, 2, 4, "10.0.0.1", 29400)


@pytest.mark.parametrize("changed", [{"RANK": "4"}, {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, {"LOCAL_WORLD_SIZE": "5"}], ids=str)
def test_numbers_that_do_not_fit_each_other_are_refused(changed: dict[str, str]) -> None:
    with pytest.raises(UserError, match="do not fit each other; start the processes with torchrun"):
        launched({**FIRST, **changed})


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK"])
def test_a_variable_that_is_no_number_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"environment variable {name}=-1 must be a whole number"):
        launched({**FIRST, name: "-1"})
