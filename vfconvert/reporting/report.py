"""The one value that every renderer reads: what a conversion decided, did, measured and wrote. Integers and SI units.

MACs are multiply-adds of one image's forward pass; FLOPs = 2 x MACs. *Method* MACs count every secondary filter by the
area of its crop and the width of its window (Wang et al. 2018); *executed* MACs are those the written file computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vfconvert.reporting.latency import LatencyReport, PrecisionReport
from vfconvert.reporting.sample import SampleReport

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRow:
    """One Conv2d. `decision` is "convert" or "keep"; a kept one has `code` and `reason`, a converted one `spec`.

    `unexplained` is the share of the layer's output variance (weighted by importance) that the closed-form fit leaves.
    `parameters_share` (weight and bias; what is tied counts once) and `macs_share` are shares of the whole original
    network, the latter None where the layer's runs are not known. `flag` would include a kept layer, None: none can.
    `damage` is what the plan predicts that the layer adds to `BudgetReport.damage`; None where none was searched for.
    """

    name: str
    decision: str
    shape: str  # "64->128 3x3 /2", groups where not 1
    spec: str | None = None
    group_convolution: bool = False  # windows that share nothing: said where it is chosen
    code: str | None = None
    reason: str | None = None
    weights_before: int = 0
    weights_after: int = 0
    macs_before: int = 0
    macs_after: int = 0  # method
    unexplained: float | None = None
    form: str | None = None  # how the file computes it: segments, full, separate, or plain (smaller, not faster)
    macs_executed: int | None = None  # in that form
    parameters_share: float = 0.0
    macs_share: float | None = None
    flag: str | None = None
    damage: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """One network: `parameters` (numbers), `weight_bytes`, MACs by both counts, and `file_bytes` on disk if any.

    `uncounted` operators ran whose products are unknown: MACs are then lower bounds.
    """

    parameters: int
    weight_bytes: int
    macs_method: int
    macs_executed: int
    file_bytes: int | None = None
    uncounted: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreementReport:
    """Is it still my network? Measured on images that no stage before has seen.

    `measure` is "top-1 agreement" or "pixel agreement" (shares), or "PSNR" (dB, relative to the original's output);
    `relative_error` is ||difference|| / ||original output||. Accuracies (shares) where the images are labelled.
    `relative_change` is for networks that answer with a corrected input: ||difference|| / ||original's correction||.
    `held_out` is False where the images were synthetic or there was none to hold out. `distinct` is how many different
    answers the original gives them: classes, or outputs where these are no logits.
    """

    measure: str
    value: float
    relative_error: float
    images: int
    held_out: bool
    relative_change: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    distinct: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """The written file against the converted network: `max|d|`, `max|d|/max|y|`, its tolerance, batches compared."""

    maximum_error: float
    relative_error: float
    tolerance: float
    batch_sizes: tuple[int, ...]
    runtime: str
    dynamic_batch: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FileReport:
    """A file read or written."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtefactReport:
    """A written file of one format with its own comparison."""

    format: str
    path: str
    bytes: int
    sha256: str
    parity: ParityReport | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesReport:
    """Where the calibration images came from: a folder, or "synthetic" by some `method`; how many; how prepared."""

    source: str
    method: str
    calibration: int
    held_out: int
    preprocessing: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetReport:
    """One limit on the whole network: what was allowed, predicted when the plan was chosen, and reached in the end.

    In numbers, MACs, bytes or seconds; `reached` is None where nothing was made or measured.
    """

    target: str
    allowed: float
    predicted: float
    reached: float | None

    @property
    def kept(self) -> bool:
        """Whether what was reached is within what was allowed; True where it is not known."""
        return self.reached is None or self.reached <= self.allowed


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialReport:
    """A plan that was fitted to be compared: its kinds of filter, its predicted damage, and the output's distance.

    `loss` is in nats for logits, else in shares of the variance of the original's output.
    """

    kinds: tuple[str, ...]
    damage: float
    loss: float
    chosen: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetReport:
    """How a plan was chosen. `damage` is predicted, in nats or in shares of the output's variance (`measure`).

    `gap`: by what share the damage might be lower at best. `max_drop` are points, None where none were given. `trials`
    are the plans of `--refine`, first that of the least predicted damage.
    """

    targets: tuple[TargetReport, ...]
    damage: float
    measure: str
    gap: float
    max_drop: float | None = None
    trials: tuple[TrialReport, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingReport:
    """The fine-tuning. `epochs` are records of every validation, epoch 0 before training, with metrics by name.

    `losses` are pairs of step and loss; `unreadable` names images that were skipped.
    """

    task: str
    metric: str
    higher_is_better: bool
    optimizer: str
    rate: float
    norms: str
    precision: str
    batch: int
    processes: int
    epochs: tuple[Mapping[str, Any], ...]
    losses: tuple[tuple[int, float], ...]
    steps: int
    resumed_from: int
    best_epoch: int
    norms_estimated: bool
    unreadable: tuple[str, ...]
    seconds: float
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GateReport:
    """One limit that the user set to the result: `name` is the option without dashes, with the cost where it has one.

    `figure` says what `got` is, None where it could not be measured: then the gate has failed. `bound` is "at least" or
    "at most" of `limit`; `unit` of both is "share" (of 1), "points", "ratio" or "bytes".
    """

    name: str
    figure: str
    unit: str
    bound: str
    limit: float
    got: float | None
    passed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionReport:
    """All of a conversion. `warnings` are sentences. Output, parity, agreement are None after a dry run.

    `forms` is what was asked of converted layers: "fastest", or "plain" for ordinary convolutions.
    Where a gate failed and files were not to be kept, there is no output and no artefact: `discarded` tells of those
    that were made, compared and measured, and do not exist.
    """

    command: str
    versions: Mapping[str, str]
    seed: int
    device: str
    input: FileReport
    input_shape: tuple[int, ...]
    input_shapes: tuple[tuple[int, ...], ...] = ()  # of several inputs; then the one above has the channels of all
    layers: tuple[LayerRow, ...]
    linears: tuple[LayerRow, ...] = ()  # Linear layers on flattened maps, kept
    before: Size
    after: Size
    images: ImagesReport | None = None
    agreement: AgreementReport | None = None
    parity: ParityReport | None = None
    output: FileReport | None = None
    seconds: Mapping[str, float] | None = None
    warnings: tuple[str, ...] = ()
    trusted_pickle: bool = False
    artefacts: tuple[ArtefactReport, ...] = ()
    latency: LatencyReport | None = None
    budget: BudgetReport | None = None
    training: TrainingReport | None = None
    precisions: tuple[PrecisionReport, ...] = ()
    samples: tuple[SampleReport, ...] = ()
    gates: tuple[GateReport, ...] = ()
    discarded: tuple[ArtefactReport, ...] = ()
    forms: str = "fastest"
    schema_version: int = SCHEMA_VERSION

    @property
    def dry(self) -> bool:
        """Whether nothing was fitted."""
        return self.output is None and not self.discarded and self.images is None

    @property
    def failed_gates(self) -> tuple[GateReport, ...]:
        """The gates that the result does not pass."""
        return tuple(gate for gate in self.gates if not gate.passed)
