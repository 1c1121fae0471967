"""What the sweep does besides the fit itself, and how much of it a network's size allows."""

from __future__ import annotations

from dataclasses import dataclass, field

from vfconvert.fitting.augment import Augmentation

_BLOCK_BUDGET = 3e12  # multiply-adds of all steps of all blocks, forward and backward
_OUTPUT_BUDGET = 4e12  # the same for the pass on the output
_BATCH_MACS = 32 * 250e6  # multiply-adds of a batch's forward pass from which the batch gets smaller

_FEWEST_STEPS, _FEWEST_OUTPUT_STEPS = 20, 50


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    """`block_steps` and `output_steps` are Adam steps of `batch` images per block and on the output (0: none).

    The rates are those of the first step; they fall to zero along a cosine.
    """

    block_steps: int = 600
    output_steps: int = 1000
    batch: int = 32
    block_rate: float = 1e-3
    output_rate: float = 2e-4
    residual_targets: bool = True
    refit_kept: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0

    @property
    def left_out(self) -> str:
        """The stages with gradients for which a network is too large, in words; empty where there is none."""
        stages = {"the reconstruction of blocks": self.block_steps, "the pass on the output": self.output_steps}
        return " and ".join(stage for stage, steps in stages.items() if not steps)

    @classmethod
    def within_budget(
        cls, *, macs: int, reconstruct: bool, augmentation: Augmentation, seed: int, share: float = 1.0
    ) -> FitOptions:
        """Steps for a network of so many multiply-adds per image: as many as do good, fewer where each is dear.

        `share` is that of the usual work; where it allows too few steps to do good there are none.
        """
        batch = int(min(32, max(8, _BATCH_MACS // max(macs, 1))))
        step = 3 * batch * max(macs, 1)
        if not reconstruct:
            return cls(block_steps=0, output_steps=0, augmentation=augmentation, seed=seed)
        return cls(
            block_steps=_steps(600, share * _BLOCK_BUDGET / step),
            output_steps=_steps(1000, share * _OUTPUT_BUDGET / step, _FEWEST_OUTPUT_STEPS),
            batch=batch,
            augmentation=augmentation,
            seed=seed,
        )


def _steps(enough: int, affordable: float, fewest: int = _FEWEST_STEPS) -> int:
    """At most `enough`; none below what a descent needs to get anywhere."""
    steps = min(enough, int(affordable))
    return steps if steps >= fewest else 0
