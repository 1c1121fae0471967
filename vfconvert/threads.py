"""Work shared out to threads that each compute in few: better than many threads in each of many small operators."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

One = TypeVar("One")
Made = TypeVar("Made")

_TURN = threading.Lock()  # how many threads torch computes in where a new thread begins is one number for all


def side_by_side(
    work: Callable[[One], Made],
    ones: Sequence[One],
    most: int | None = None,
    cost: Callable[[One], float] | None = None,
) -> list[Made]:
    """`work` of each, in order, without gradients, `most` at a time, in as many threads as torch computes in.

    Those of the highest `cost` are begun first, so that no thread is left alone with one of them at the end. Where
    there is less to do at a time than threads each computes in its share of them. torch's number of threads is
    afterwards as before. Callers in several threads take turns; `work` itself must not call this.
    """

    def alone(one: One) -> Made:
        with torch.no_grad():
            return work(one)

    with _TURN:
        count = torch.get_num_threads()
        workers = max(1, min(count, len(ones), count if most is None else most))
        if workers == 1:
            return [alone(one) for one in ones]
        order = sorted(range(len(ones)), key=lambda index: -cost(ones[index]) if cost is not None else index)
        try:
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(count // workers,)) as pool:
                made = dict(zip(order, pool.map(alone, [ones[index] for index in order]), strict=True))
                return [made[index] for index in range(len(ones))]
        finally:
            torch.set_num_threads(count)
