"""What a user asks of one conversion: plain, frozen, checked where each value is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vfconvert.gates import Saving
from vfconvert.overrides import Override
from vfconvert.targets import Target
from vfconvert.training_options import TrainingOptions

Shape = tuple[int, int, int]
OPSETS = (18, 23)  # of ONNX, first and last: Pad takes `axes` from 18 on, and torch's exporter states 23 as its newest
FORMS = ("fastest", "plain")  # how files compute converted layers


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionOptions:
    """Every option of the command line has its field here, of the same name.

    `channel_stride` is a count of channels (int) or a share of the layer's channels (float below 1).
    `input_shape` is `(C, H, W)`, or one such for each input; None: from the data, or 224x224 with the first
    convolution's channels.
    """

    model: Path
    spatial: bool = False
    channel: bool = False
    windows: int = 2
    channel_stride: int | float = 0.25
    crops: str = "squares"
    linear: bool = False  # a Linear that reads a flattened map is a convolution of it, to be converted as others are
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include_first: bool = False  # convert the first convolution too
    layers: tuple[Override, ...] = ()  # what becomes of some layers; of several that match one, the last
    plan: Path | None = None  # convert by this file; then nothing above says anything
    save_plan: Path | None = None  # write the plan that is used
    targets: tuple[Target, ...] = ()  # limits within which the least harmful plan is chosen
    max_drop: float | None = None  # points that the smallest plan may lose on images held out to choose by
    refine: int = 0  # other plans within the targets that are fitted to see which is best
    damage_cache: Path | None = None  # None: beside the model
    data: Path | None = None
    target_data: Path | None = None  # clean images or masks, matched with those of `data` by name
    trust_data_code: bool = False  # `data` may name code of the user's own, which is run
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preset: str | None = None
    input_shape: Shape | tuple[Shape, ...] | None = None
    calibration_images: int | None = None  # to fit on, at most; None: 1,024, of 2 GiB at most
    reconstruct: bool = True
    augment: bool = True
    arch: str | None = None
    arch_args: Mapping[str, object] = field(default_factory=dict)
    trust_pickle: bool = False
    output: Path | None = None  # None: the model's name with ".onnx" (".versatile.onnx" where that is taken)
    reports: tuple[Path, ...] = ()  # what each holds is told by its suffix
    samples: int = 12  # images that reports show with both networks' answers
    formats: tuple[str, ...] = ("onnx",)
    dynamic_size: bool = False  # ONNX of any height and width
    opset: int = OPSETS[0]
    measure: bool = True  # time the forms of each layer, and the network before and after
    forms: str = "fastest"  # of `FORMS`; "plain": every converted layer as an ordinary convolution
    threads: int = 1  # of the runtime that is timed
    costs: Path | None = None  # table of layer costs, read where it is there and written where not
    precision: str = "fp32"
    int8: bool = False
    seed: int = 0
    device: str = "cpu"
    dry_run: bool = False
    fail_under_saving: tuple[Saving, ...] = ()  # gates: what the measured report has to keep
    fail_over_drop: float | None = None  # points that may be lost at most on the images that judge
    max_latency_ratio: float | None = None  # after / before
    max_parity_error: float | None = None  # max|d| / max|y| of every file
    max_size: int | None = None  # bytes of the largest file
    keep_on_fail: bool = False  # files appear although a gate failed
    junit: Path | None = None  # gates and parity as JUnit XML
    training: TrainingOptions = field(default_factory=TrainingOptions)
    command: str = "vfconvert"  # the command line, for the report

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """The `(C, H, W)` of every input that is stated."""
        given: tuple[Any, ...] = self.input_shape or ()
        return (given,) if given and isinstance(given[0], int) else given

    @property
    def whole_shape(self) -> Shape | None:
        """The `(C, H, W)` of all inputs side by side, C the channels of all; None where none is stated."""
        shapes = self.input_shapes
        return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes else None

    @property
    def gated(self) -> bool:
        """Whether any gate is set."""
        limits = (self.fail_over_drop, self.max_latency_ratio, self.max_parity_error, self.max_size)
        return bool(self.fail_under_saving) or any(limit is not None for limit in limits)

    @property
    def searches(self) -> bool:
        """Whether a plan is to be searched for."""
        return bool(self.targets) or self.max_drop is not None
