"""A class for each pixel: cross entropy, and the mean intersection over union of the classes.

`mIoU = mean over classes of TP / (TP + FP + FN)` over the pixels of all images together, as of PASCAL VOC (Everingham
et al., 2015, section 4.2.2); classes that neither the masks nor the network show are left out of the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.errors import TrainingError
from vfconvert.tasks.classification import check_labels
from vfconvert.tasks.meter import Meter, SumMeter, needed
from vfconvert.tasks.structure import full_precision, main_tensor

IGNORED = 255  # pixels without a label, as in VOC's and Cityscapes' masks


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Logits `(B, classes, h, w)` against masks `(B, H, W)` of classes from 0, 255 ignored; mIoU in percent.

    Logits of another size are enlarged to the mask's, bilinearly, corners not aligned as in torchvision.
    """

    classes: int
    name: str = "segmentation"
    metrics: tuple[str, ...] = ("miou",)
    higher_is_better: bool = True
    pixelwise: bool = True

    def supervised_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean cross entropy in nats over the pixels that have a label, 0 where none has.

        Raises `TrainingError` for a label that is no class of the network, and shapes that do not fit.
        """
        logits, masks = self._maps(outputs, targets)
        total = F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="sum")
        return total / (masks != IGNORED).sum().clamp_min(1)

    def meter(self, device: torch.device) -> Meter:
        """A meter whose sums are pixels with a label and the confusion matrix, true classes by row."""
        return SumMeter(1 + self.classes**2, device, self._sums, self._result)

    def _maps(self, outputs: Any, targets: Tensor | None) -> tuple[Tensor, Tensor]:
        masks = needed(targets, self.name)
        logits = main_tensor(outputs)
        fits = logits is not None and logits.dim() == 4 and logits.shape[:2] == (len(masks), self.classes)
        if logits is None or not fits or masks.dim() != 3:
            got = "no tensor" if logits is None else tuple(logits.shape)
            raise TrainingError(
                f"segmentation got outputs {got} for masks {tuple(masks.shape)}, expected logits "
                f"({len(masks)}, {self.classes}, h, w) and masks (B, H, W); check the network and the data"
            )
        check_labels(masks, self.classes, IGNORED)
        logits = full_precision(logits)
        if logits.shape[-2:] != masks.shape[-2:]:
            logits = F.interpolate(logits, size=masks.shape[-2:], mode="bilinear", align_corners=False)
        return logits, masks.long()

    def _sums(self, outputs: Any, teacher_outputs: Any | None, targets: Tensor | None) -> Tensor:
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        logits, masks = self._maps(outputs, targets)
        confusion = multiclass_confusion_matrix(
            logits.argmax(1), masks, self.classes, ignore_index=IGNORED, validate_args=False
        )
        return torch.cat([confusion.sum().reshape(1), confusion.flatten()])

    def _result(self, sums: list[float]) -> dict[str, float]:
        confusion = torch.tensor(sums[1:], dtype=torch.float64).reshape(self.classes, self.classes)
        right = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - right
        seen = union > 0
        return {"miou": 100 * float((right[seen] / union[seen]).mean())}
