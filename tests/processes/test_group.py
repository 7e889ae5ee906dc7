"""Several processes give the bits of one: the metrics, the weights and the scores of a training, and what the processes exchange.

Each number of processes starts once and runs all trainings.
"""

from __future__ import annotations

from typing import Any

import many_processes
import pytest
import torch
from forks import exit_code
from many_processes import DIVIDED, IN_THREE

from metarun.processes.group import Form, talking
from metarun.processes.ranks import ONE, PeerLostError

SIZES = (2, 3)
NAMES = {2: DIVIDED, 3: IN_THREE}
"""The trainings of so many processes."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """Return the results of each process, by the number of processes."""
    folder = tmp_path_factory.mktemp("processes")
    configs = {name: many_processes.config_of(name) for name in DIVIDED}
    found = {1: [{"joined": many_processes.joined(ONE), **many_processes.results(configs, folder / "1")}]}
    started = {size: many_processes.start(size, folder / str(size), {name: configs[name] for name in NAMES[size]}) for size in SIZES}
    for size, processes in started.items():
        assert [exit_code(process) for process in processes] == [0] * size
        found[size] = [torch.load(folder / str(size) / f"{rank}.pt", weights_only=False) for rank in range(size)]
    return found


@pytest.mark.parametrize(("name", "size"), [(name, size) for size in SIZES for name in NAMES[size]])
def test_a_training_on_several_processes_is_that_on_one_bit_for_bit(outcomes: dict[int, list[Any]], name: str, size: int) -> None:
    """Five tasks in chunks of two: two processes get 4 and 1 of them, three get 2, 2 and 1."""
    expected = outcomes[1][0][name]
    for found in (process[name] for process in outcomes[size]):
        assert found["metrics"] == expected["metrics"]
        assert found["scores"] == expected["scores"]
        assert found["error"] == expected["error"]
        for part in ("params", "state"):
            assert found[part].keys() == expected[part].keys()
            assert all(torch.equal(found[part][key], expected[part][key]) for key in expected[part])


@pytest.mark.parametrize("size", SIZES)
def test_rows_come_in_the_order_of_the_processes_with_their_types(outcomes: dict[int, list[Any]], size: int) -> None:
    expected = outcomes[1][0]["joined"]["gathered"]
    for process in outcomes[size]:
        found = process["joined"]["gathered"]
        assert found["none"] is None
        for name in ("flag", "sum", "key"):
            assert found[name].dtype == expected[name].dtype
            assert torch.equal(found[name], expected[name])


@pytest.mark.parametrize("size", SIZES)
def test_a_sum_has_the_order_of_its_parts_and_their_layout(outcomes: dict[int, list[Any]], size: int) -> None:
    expected = outcomes[1][0]["joined"]["sum"]
    backwards = many_processes.in_order([many_processes.addend(number) for number in reversed(range(5))])
    assert not torch.equal(expected["wide"], backwards["wide"]), "the order must matter"
    for process in outcomes[size]:
        found = process["joined"]["sum"]
        for name, value in expected.items():
            assert torch.equal(found[name], value)
            assert found[name].stride() == value.stride()


def test_an_error_of_a_connection_becomes_one_sentence_and_others_stay() -> None:
    with pytest.raises(PeerLostError, match="another process of this command has ended"), talking():
        raise RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:2464")
    with pytest.raises(RuntimeError, match="The size of tensor a"), talking():
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")


def test_an_idle_process_makes_tensors_of_the_form_of_the_others() -> None:
    leaf = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    made = Form.of(leaf).empty(0)
    assert made.shape == leaf.shape
    assert made.stride() == leaf.stride()
    assert made.dtype == leaf.dtype
    assert Form.of(None) is None
