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


def highest(most: int | None) -> int:
    """How many of ten things were done at once, each of which waits for another to begin."""
    running, found, change = set[int](), list[int](), threading.Condition()

    def look(number: int) -> None:
        with change:
            running.add(number)
            change.notify_all()
            change.wait_for(lambda: len(running) > 1, timeout=0.05)
            found.append(len(running))
        with change:
            running.discard(number)

    side_by_side(look, range(10), most)
    return max(found)


@pytest.mark.usefixtures("three_threads")
def test_no_more_at_once_than_is_said() -> None:
    assert highest(1) == 1
    assert highest(2) == 2
    assert 1 < highest(None) <= 3


@pytest.mark.usefixtures("three_threads")
def test_what_costs_most_is_begun_first() -> None:
    begun = list[int]()

    def look(number: int) -> int:
        begun.append(number)
        return -number

    torch.set_num_threads(2)
    first = threading.Barrier(2, timeout=60)

    def slowly(number: int) -> int:
        found = look(number)
        if number > 2:
            first.wait()  # two at a time, until both of the costliest have begun
        return found

    assert side_by_side(slowly, [1, 4, 2, 3], cost=float) == [-1, -4, -2, -3]
    assert set(begun[:2]) == {3, 4}
    begun.clear()
    side_by_side(look, [1, 4, 2, 3])
    assert begun[0] == 1


@pytest.mark.usefixtures("three_threads")
def test_threads_that_are_left_over_are_shared_out() -> None:
    def look(number: int) -> int:
        return torch.get_num_threads()

    assert side_by_side(look, [1]) == [3]
    assert side_by_side(look, [1, 2]) == [1, 1]
    torch.set_num_threads(4)
    assert side_by_side(look, [1, 2]) == [2, 2]


@pytest.mark.usefixtures("three_threads")
def test_callers_in_several_threads_take_turns() -> None:
    seen, begun = list[int](), threading.Event()

    def look(number: int) -> int:
        begun.set()
        return torch.get_num_threads()

    def other() -> None:
        begun.wait(60)
        side_by_side(look, range(40))
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=other)
    thread.start()
    for _ in range(20):
        side_by_side(look, range(40))
    thread.join()
    late = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    late.start()
    late.join()
    assert seen == [3, 3]


@pytest.mark.usefixtures("three_threads")
def test_an_error_comes_out_and_threads_are_as_before() -> None:
    def fails(number: int) -> None:
        raise ValueError(f"got {number}")

    with pytest.raises(ValueError, match="got 7"):
        side_by_side(fails, [7, 8])
    assert torch.get_num_threads() == 3
    assert side_by_side(fails, []) == []
