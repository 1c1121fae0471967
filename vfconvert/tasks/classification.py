"""One class for each image: cross entropy, top-1 and top-5 accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.errors import TrainingError
from vfconvert.tasks.meter import Meter, SumMeter, needed
from vfconvert.tasks.structure import full_precision, main_tensor

_FEW = 5  # classes that "top5" looks at


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Logits `(B, classes)` against classes `(B,)` from 0; metrics in percent, higher is better.

    `label_smoothing` is the share of a label, 0 to 1, that the loss spreads over all classes.
    """

    classes: int
    label_smoothing: float = 0.0
    name: str = "classification"
    higher_is_better: bool = True
    pixelwise: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise TrainingError(f"label smoothing: got {self.label_smoothing:g}, expected 0 or more and less than 1")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Top-5 only where there are more than 5 classes."""
        return ("top1", "top5") if self.classes > _FEW else ("top1",)

    def supervised_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean cross entropy in nats. Raises `TrainingError` for a label that is no class of the network."""
        return F.cross_entropy(*self._rows(outputs, targets), label_smoothing=self.label_smoothing)

    def meter(self, device: torch.device) -> Meter:
        """A meter whose sums are images, right ones, and where it counts right ones among five."""
        return SumMeter(1 + len(self.metrics), device, self._sums, self._result)

    def _rows(self, outputs: Any, targets: Tensor | None) -> tuple[Tensor, Tensor]:
        labels = needed(targets, self.name)
        logits = main_tensor(outputs)
        if logits is None or logits.shape != (len(labels), self.classes):
            got = "no tensor" if logits is None else tuple(logits.shape)
            raise TrainingError(
                f"classification got outputs {got} for labels {tuple(labels.shape)}, "
                f"expected logits {(len(labels), self.classes)}; check the network and the data"
            )
        check_labels(labels, self.classes)
        return full_precision(logits), labels.long()

    def _sums(self, outputs: Any, teacher_outputs: Any | None, targets: Tensor | None) -> Tensor:
        logits, labels = self._rows(outputs, targets)
        sums = [float(len(labels))]
        finite = torch.isfinite(logits).all(1)  # other rows are wrong, wherever their largest value stands
        logits, labels = logits[finite], labels[finite]
        for name in self.metrics:
            top = _FEW if name == "top5" else 1
            sums.append(_right(logits, labels, self.classes, top) if len(labels) else 0.0)
        return torch.tensor(sums, dtype=torch.float64)

    def _result(self, sums: list[float]) -> dict[str, float]:
        return {name: 100 * right / sums[0] for name, right in zip(self.metrics, sums[1:], strict=True)}


def _right(logits: Tensor, labels: Tensor, classes: int, top: int) -> float:
    """How many labels `(B,)` are among the `top` largest of their logits `(B, classes)`."""
    from torchmetrics.functional.classification import multiclass_stat_scores

    scores = multiclass_stat_scores(logits, labels, classes, average="micro", top_k=top, validate_args=False)
    return float(scores[0])  # the true positives


def check_labels(labels: Tensor, classes: int, ignored: int | None = None) -> None:
    """Raise `TrainingError` naming a label that is not one of `0` to `classes - 1`, nor the ignored one."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    wrong = wrong if ignored is None else wrong[wrong != ignored]
    if wrong.numel():
        allowed = f"0 to {classes - 1}" + ("" if ignored is None else f", or {ignored} for what is ignored")
        raise TrainingError(
            f"label {int(wrong[0])} in the data, but the network has {classes} classes: expected {allowed}; "
            "correct the labels or choose the task distil"
        )
