"""What holds for any network: it should answer as the teacher does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vfconvert.errors import TrainingError
from vfconvert.tasks.meter import Meter, SumMeter, wide
from vfconvert.tasks.structure import full_precision, looks_like_logits, main_tensor, matched


@dataclass(frozen=True, kw_only=True)
class Distil:
    """Outputs against the teacher's; labels are not looked at.

    Logits are judged by "agreement", the percentage of rows `(B, K)` with the same largest one. Any other structure of
    `tensors` floating-point tensors by "error", lower is better: of each tensor `‖got - wanted‖ / ‖wanted‖` over all
    examples, in the mean over the tensors.
    """

    logits: bool
    tensors: int = 1
    name: str = "distil"
    pixelwise: bool = False

    @classmethod
    def of(cls, example_output: Any) -> Distil:
        """The task for outputs like the example.

        Raises `TrainingError` where it holds no floating-point tensor, and as `matched` does where its size varies.
        """
        tensors = sum(1 for _ in matched(example_output, example_output))
        if not tensors:
            raise TrainingError(
                "the network returns no floating-point tensor, expected at least one to match with the teacher's; "
                "wrap it so that it returns its logits or features"
            )
        main = main_tensor(example_output)
        return cls(logits=main is not None and looks_like_logits(full_precision(main)), tensors=tensors)

    @property
    def metrics(self) -> tuple[str, ...]:
        """One of two, as the outputs are logits or not."""
        return ("agreement",) if self.logits else ("error",)

    @property
    def higher_is_better(self) -> bool:
        """True of the agreement."""
        return self.logits

    def supervised_loss(self, outputs: Any, targets: Tensor) -> None:
        """None: there is no other aim than the teacher."""
        return None

    def meter(self, device: torch.device) -> Meter:
        """A meter whose sums are rows and agreeing ones, or batches and the squares of differences and of outputs."""
        if self.logits:
            return SumMeter(2, device, self._agreeing, self._percentage)
        return SumMeter(1 + 2 * self.tensors, device, self._squares, self._error)

    def _agreeing(self, outputs: Any, teacher_outputs: Any | None, targets: Tensor | None) -> Tensor:
        _pairs(outputs, teacher_outputs)
        got, wanted = main_tensor(outputs), main_tensor(teacher_outputs)
        if got is None or wanted is None or wanted.dim() != 2:
            shape = "no tensor" if wanted is None else tuple(wanted.shape)
            raise TrainingError(
                f"distil got outputs {shape}, expected logits (B, K) as in the example; check the network"
            )
        finite = torch.isfinite(got).all(1) & torch.isfinite(wanted).all(1)
        same = (got.argmax(1) == wanted.argmax(1)) & finite
        return torch.stack([same.new_tensor(len(same), dtype=torch.int64), same.sum()])

    def _squares(self, outputs: Any, teacher_outputs: Any | None, targets: Tensor | None) -> Tensor:
        pairs = _pairs(outputs, teacher_outputs)
        if len(pairs) != self.tensors:
            raise TrainingError(
                f"the network returns {len(pairs)} floating-point tensors, expected {self.tensors} as in the example; "
                "it must return the same ones for every batch"
            )
        exact = [(wide(got), wide(wanted)) for _, got, wanted in pairs]
        squares = [part for got, wanted in exact for part in ((got - wanted).square().sum(), wanted.square().sum())]
        return torch.stack([torch.ones_like(squares[0]), *squares])

    def _percentage(self, sums: list[float]) -> dict[str, float]:
        return {"agreement": 100 * sums[1] / sums[0]}

    def _error(self, sums: list[float]) -> dict[str, float]:
        squares = torch.tensor(sums[1:], dtype=torch.float64).reshape(self.tensors, 2)
        wrong, whole = squares.unbind(1)
        relative = torch.where(wrong == 0, wrong, wrong / whole).sqrt()  # nothing of nothing is no error
        return {"error": float(relative.mean())}


def _pairs(outputs: Any, teacher_outputs: Any | None) -> list[tuple[str, Tensor, Tensor]]:
    if teacher_outputs is None:
        raise TrainingError("distil has no teacher's outputs to compare with; give the original network's")
    return list(matched(outputs, teacher_outputs))
