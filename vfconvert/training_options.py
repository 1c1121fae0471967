"""What a user asks of the fine-tuning: plain, frozen, checked here as a whole."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfconvert.errors import TrainingError

OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
NORMS = ("auto", "batch", "frozen")
_RATES = {"sgd": 0.02, "adamw": 1e-3}  # for a batch of 128
_USUAL_BATCH = 128
_SHORT_RATE = 3e-4  # of AdamW in a run too short to come back from what a higher one disturbs
_FEWEST_IMAGES, _FEWEST_STEPS = 32, 300  # for which statistics of the batch are worth the disturbance
_SHAPING = (  # what decides the weights, so that a run can only be continued with the same
    *("epochs", "batch", "optimizer", "rate", "momentum", "weight_decay", "warm_up", "clip", "temperature"),
    *("feature_weight", "label_weight", "task", "scale", "patch", "views", "padding", "crop_scale", "flip"),
    *("precision", "norms", "ema"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """`norms` of "auto": by each batch where batches are large and the run is long, else as they are.

    `epochs` of 0 is no training. `rate` None: by optimizer, batch, norms and steps. `batch` counts all processes.
    `precision` of "auto" is bf16 where the device has units for it and the network answers nearly the same in it, else
    fp32; `channels_last` None: with 16 bits where the network can.

    `warm_up` is a share of all steps; `clip` bounds the norm of all gradients (0: not); `feature_weight` and
    `label_weight` are those of the match of converted layers' outputs and of the labels beside the distillation;
    `ema` is the decay of averaged weights (0: none); `patience` counts epochs without a better metric (0: no end);
    `views` are random views of each image in an epoch; `minutes` is the time between checkpoints besides those of every
    epoch. With `finish` the run that `resume` goes on from takes no further step.
    """

    epochs: int = 0
    batch: int = 128
    optimizer: str = "adamw"
    rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warm_up: float = 0.3
    clip: float = 5.0
    temperature: float = 4.0
    feature_weight: float = 0.0
    label_weight: float = 0.0
    task: str | None = None
    scale: int | None = None
    patch: int | None = None
    views: int = 1
    padding: int = 0
    crop_scale: tuple[float, float] | None = None
    flip: bool = True
    workers: int = 0
    most_unreadable: float = 0.01
    precision: str = "auto"
    channels_last: bool | None = None
    compile: bool = False
    norms: str = "auto"
    ema: float = 0.0
    patience: int = 0
    checkpoints: Path | None = None
    minutes: float = 10.0
    resume: bool = False
    finish: bool = False
    tensorboard: Path | None = None

    def __post_init__(self) -> None:
        """Raises `TrainingError` naming the option, what it got and what it takes."""
        for name, low, high in (
            ("epochs", 0, 1e6),
            ("batch", 1, 1e9),
            ("momentum", 0, 0.9999),
            ("weight_decay", 0, 1e3),
            ("warm_up", 0, 0.9),
            ("clip", 0, 1e9),
            ("feature_weight", 0, 1e9),
            ("label_weight", 0, 1e9),
            ("ema", 0, 0.999999),
            ("patience", 0, 1e6),
            ("scale", 1, 1e3),
            ("patch", 1, 1e6),
            ("views", 1, 1e6),
            ("padding", 0, 1e6),
            ("workers", 0, 1e4),
            ("minutes", 0, 1e6),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                got = f"{value:g}" if isinstance(value, float) else value  # a whole number may be longer than a float
                raise TrainingError(f"{_flag(name)}: got {got}, expected {low:g} to {high:g}")
        if not 0 <= self.most_unreadable < 1:
            raise TrainingError(f"--most-unreadable: got {self.most_unreadable:g}, expected a share from 0 to below 1")
        if self.finish and not self.resume:
            raise TrainingError("--finish ends the run that --resume goes on from; give both")
        for name, value in (("rate", self.rate), ("temperature", self.temperature)):
            if value is not None and not 0 < value < 1e6:
                raise TrainingError(f"--{name}: got {value:g}, expected a number above 0")
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS), ("norms", NORMS)):
            if getattr(self, name) not in known:
                raise TrainingError(f"{_flag(name)}: got {getattr(self, name)!r}, expected one of {', '.join(known)}")
        self._check_views()

    def _check_views(self) -> None:
        """Raise `TrainingError` where random parts of images are not described by their numbers."""
        shares = self.crop_scale
        if shares is not None and not (len(shares) == 2 and 0 < shares[0] <= shares[1] <= 1):
            got = ",".join(f"{share:g}" for share in shares)
            raise TrainingError(
                f"--crop-scale: got {got}, expected the least and the most share of an image, above 0 and up to 1, "
                "like 0.5,1"
            )
        if self.patch is not None and self.scale is not None and self.patch % self.scale:
            raise TrainingError(f"--patch: got {self.patch}, expected a multiple of --scale {self.scale}")

    @property
    def highest_rate(self) -> float:
        """The rate after the warm-up."""
        if self.rate is not None:
            return self.rate
        batches = self.batch / _USUAL_BATCH
        if self.optimizer == "adamw" and self.norms == "batch":
            batches = min(batches, 1.0)  # twice that rate harms the fit at first
        return _RATES[self.optimizer] * batches

    def settled(self, *, has_norms: bool, steps: int) -> TrainingOptions:
        """With `norms` of "auto" decided, and the rate where it is for so few steps that most would go into harm.

        For a network with BatchNorms or without and a run of so many steps.
        """
        norms, rate, short = self.norms, self.rate, steps < _FEWEST_STEPS
        if norms == "auto":
            norms = "batch" if has_norms and self.batch >= _FEWEST_IMAGES and not short else "frozen"
        if rate is None and has_norms and norms == "frozen" and short and self.optimizer == "adamw":
            rate = _SHORT_RATE * self.batch / _USUAL_BATCH
        return dataclasses.replace(self, norms=norms, rate=rate)

    def shaping(self) -> dict[str, Any]:
        """The options that decide the final weights, as JSON holds them."""
        values = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v := values[name], tuple) else v for name in _SHAPING}


def _flag(name: str) -> str:
    """The option of the command line for a field."""
    return {"minutes": "--checkpoint-minutes", "precision": "--train-precision"}.get(
        name, f"--{name.replace('_', '-')}"
    )
