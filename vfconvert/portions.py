"""Fewer images at once where memory runs out: what failed is computed again in halves, and so is what follows."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from vfconvert.shortages import is_out_of_memory

Result = TypeVar("Result")


class Portion:
    """How many images are computed at once: `size`, at first `most`, half as many whenever memory runs out."""

    def __init__(self, most: int) -> None:
        self.most = self.size = most

    def fitted(self, compute: Callable[[int], Result], generator: torch.Generator | None = None) -> Result:
        """`compute(size)`, from the beginning and with the same random numbers of `generator` for every size tried.

        What a single image has no memory for raises what it raises.
        """
        begun = generator.get_state() if generator is not None else None
        while True:
            try:
                return compute(self.size)
            except Exception as error:
                if self.size == 1 or not is_out_of_memory(error):
                    raise
            # Out of the handler, since the error holds all that was computed.
            self.size = self.size // 2
            gc.collect()
            if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.empty_cache()
            if generator is not None and begun is not None:
                generator.set_state(begun)

    def note(self, stage: str) -> tuple[str, ...]:
        """A sentence for the report where memory ran out."""
        if self.size == self.most:
            return ()
        return (
            f"memory did not suffice for {self.most} images at once in {stage}: {self.size} at a time were computed, "
            "which takes longer",
        )
