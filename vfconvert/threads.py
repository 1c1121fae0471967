"""Work shared out to threads that each compute in one: better than many threads in each of many small operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

One = TypeVar("One")
Made = TypeVar("Made")


def side_by_side(work: Callable[[One], Made], ones: Sequence[One], most: int | None = None) -> list[Made]:
    """`work` of each, in order, without gradients, in as many threads as torch computes in (and at `most` so many).

    What is found does not depend on how many these are. torch's number of threads is afterwards as before.
    """
    count = torch.get_num_threads()
    workers = max(1, min(count, len(ones), count if most is None else most))

    def alone(one: One) -> Made:
        with torch.no_grad():
            return work(one)

    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(alone, ones))
    finally:
        torch.set_num_threads(count)
