"""Work that is shared out to threads: in order, without gradients, and as if nothing had happened to torch."""

import threading
from collections.abc import Iterator

import pytest
import torch

from vfconvert.threads import side_by_side


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_each_computes_in_one_thread_without_gradients_and_in_order() -> None:
    together = threading.Barrier(3, timeout=60)  # broken, and so an error, if they were not side by side

    def look(number: int) -> tuple[int, int, bool]:
        together.wait()
        return number, torch.get_num_threads(), torch.is_grad_enabled()

    assert side_by_side(look, [3, 1, 2]) == [(3, 1, False), (1, 1, False), (2, 1, False)]
    assert torch.get_num_threads() == 3
    assert torch.is_grad_enabled()


@pytest.mark.usefixtures("three_threads")
def test_no_more_at_once_than_is_said() -> None:
    running, most = set[int](), list[int]()

    def look(number: int) -> None:
        running.add(number)
        most.append(len(running))
        running.discard(number)

    side_by_side(look, range(20), most=1)
    assert most == [1] * 20


@pytest.mark.usefixtures("three_threads")
def test_an_error_comes_out_and_threads_are_as_before() -> None:
    def fails(number: int) -> None:
        raise ValueError(f"got {number}")

    with pytest.raises(ValueError, match="got 7"):
        side_by_side(fails, [7, 8])
    assert torch.get_num_threads() == 3
    assert side_by_side(fails, []) == []
