"""From the values of the stages to the rows and sentences of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import run_once
from vfconvert.analysis.profile import LayerProfile, Profile
from vfconvert.analysis.totals import Totals, ordinary_macs, ordinary_numbers, versatile_macs
from vfconvert.ledger import flag_of
from vfconvert.measuring.timing import Timing
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Convert, Decision, Keep, Plan
from vfconvert.reporting.latency import LatencyReport
from vfconvert.reporting.report import AgreementReport, ImagesReport, LayerRow, Size
from vfconvert.reporting.units import is_share
from vfconvert.specs import ConvGeometry
from vfconvert.tasks.structure import VaryingOutputError, varies
from vfconvert.verification import agreement, predict, top1_accuracy
from vfconvert.verification.parity import device_of

_JUDGING_NUMBERS = 64 * 3 * 224 * 224  # numbers in a batch of images that are judged
VARYING = "the network's outputs vary in number with what it finds: agreement with the original is not measured"


@dataclass(frozen=True, eq=False)
class Answers:
    """The main outputs `(N, …)` of the original and of the converted network on the same images.

    `example` is all that the original answers to the first of them.
    """

    wanted: Tensor
    got: Tensor
    example: Any = None


def answers_of(teacher: nn.Module, student: nn.Module, images: Tensor) -> Answers:
    """What both networks answer to images `(N, C, H, W)`.

    Raises `VaryingOutputError` where outputs are as many as the network finds objects, and cannot be matched.
    """
    outputs = run_once(teacher, images[:2].to(device_of(teacher)))
    if varies(outputs):
        raise VaryingOutputError(VARYING)
    batch = judging_batch(images)
    return Answers(predict(teacher, images, batch), predict(student, images, batch), outputs)


def agreement_of(
    answers: Answers,
    images: Tensor,
    labels: Tensor | None,
    classes: int,
    made: ImagesReport,
    *,
    class_maps: bool = False,
) -> AgreementReport:
    """How far the answers of the student are those of the teacher; `labels` of the images are below `classes`."""
    wanted, got = answers.wanted, answers.got
    found = agreement(wanted, got, class_maps=class_maps)
    comparable = labels is not None and wanted.dim() == 2 and classes == wanted.shape[1]
    correction = None
    if wanted.shape == images.shape:
        correction = float((got - wanted).norm() / (wanted - images).norm().clamp_min(1e-12))
    before = top1_accuracy(wanted, labels) if comparable and labels is not None else None
    after = top1_accuracy(got, labels) if comparable and labels is not None else None
    return AgreementReport(
        measure=found.measure,
        value=found.value,
        relative_error=found.relative_error,
        images=found.samples,
        held_out=made.source != "synthetic",
        relative_change=correction,
        accuracy_before=before,
        accuracy_after=after,
        distinct=_distinct(wanted, by_class=is_share(found.measure)),
    )


def _distinct(outputs: Tensor, *, by_class: bool) -> int:
    """How many different answers outputs `(N, …)` are: classes in dimension 1, else those that differ at all."""
    if by_class:
        return int(torch.bincount(outputs.argmax(dim=1).flatten()).count_nonzero())
    if bool((outputs == outputs[:1]).all()):
        return 1
    return len({row.numpy().tobytes() for row in outputs.contiguous()})


def judging_batch(images: Tensor) -> int:
    """How many of the images `(N, C, H, W)` are computed at once: fewer of large ones."""
    return max(1, min(64, _JUDGING_NUMBERS // images[0].numel()))


def points_lost(found: AgreementReport) -> float:
    """Percentage points of accuracy where labels are known, else of agreement, else of the output's relative error."""
    if found.accuracy_before is not None and found.accuracy_after is not None:
        return 100 * (found.accuracy_before - found.accuracy_after)
    if is_share(found.measure):
        return 100 * (1 - found.value)
    return 100 * found.relative_error


def drop_measure(found: AgreementReport) -> str:
    """What `points_lost` counts."""
    if found.accuracy_before is not None and found.accuracy_after is not None:
        return "accuracy lost"
    return "agreement lost" if is_share(found.measure) else "relative error of the outputs"


def latency_report(timings: Mapping[str, Timing], *, threads: int, batch: int) -> LatencyReport | None:
    """The timings of the network "before" and "after"; None where there are none."""
    if not timings:
        return None
    before, after = timings["before"], timings["after"]
    return LatencyReport(
        before=before.median,
        after=after.median,
        spread_before=before.spread,
        spread_after=after.spread,
        rounds=len(after.seconds),
        threads=threads,
        batch=batch,
        runtime=f"onnxruntime {version('onnxruntime')}",
    )


def layer_rows(
    plan: Plan, layers: Profile, student: nn.Module | None, unexplained: Mapping[str, float], before: Totals
) -> tuple[LayerRow, ...]:
    """One row for every Conv2d; after the fit, MACs follow the crops it chose. `before`: of the original network."""
    profiled = {name: layer for layer in layers.layers for name in layer.names}
    rows = []
    for decision in plan.decisions:
        layer = profiled.get(decision.layer)
        if isinstance(decision, Convert):
            row = _converted(decision, layer, student, unexplained)
        else:
            row = _kept(decision, layer)
        parameters = _parameters(decision, layers)
        known = layer is not None and before.macs_executed > 0
        rows.append(
            replace(
                row,
                parameters_share=parameters / before.numbers.parameters if before.numbers.parameters else 0.0,
                macs_share=row.macs_before / before.macs_executed if known else None,
            )
        )
    return tuple(rows)


def linear_rows(linears: Iterable[Keep], before: Totals) -> tuple[LayerRow, ...]:
    """One row for every Linear on a flattened map that stays one; it is computed once for each image."""
    numbers = before.numbers.parameters
    return tuple(
        replace(
            _kept(keep, None),
            shape=f"{keep.geometry.weight_numbers // keep.geometry.out_channels}->{keep.geometry.out_channels}",
            macs_before=keep.geometry.weight_numbers,
            macs_after=keep.geometry.weight_numbers,
            parameters_share=ordinary_numbers(keep.geometry) / numbers if numbers else 0.0,
            macs_share=keep.geometry.weight_numbers / before.macs_executed if before.macs_executed else None,
        )
        for keep in linears
    )


def _parameters(decision: Decision, layers: Profile) -> int:
    """Weight and bias; of tied tensors only those that no other name has been counted for."""
    geometry = decision.geometry
    numbers = {"weight": geometry.weight_numbers, "bias": geometry.out_channels if geometry.bias else 0}
    again = {name for tie in layers.tied_parameters for name in tie[1:]}
    return sum(count for name, count in numbers.items() if f"{decision.layer}.{name}" not in again)


def _kept(decision: Keep, layer: LayerProfile | None) -> LayerRow:
    macs = ordinary_macs(layer) if layer is not None else 0
    return LayerRow(
        name=decision.layer,
        decision="keep",
        shape=shape_text(decision.geometry),
        code=decision.code,
        reason=decision.reason,
        weights_before=decision.geometry.weight_numbers,
        weights_after=decision.geometry.weight_numbers,
        macs_before=macs,
        macs_after=macs,
        flag=flag_of(decision),
    )


def _converted(
    decision: Convert, layer: LayerProfile | None, student: nn.Module | None, unexplained: Mapping[str, float]
) -> LayerRow:
    geometry = decision.geometry
    rows = None
    if student is not None:
        module = student.get_submodule(decision.layer)
        rows = module.rows if isinstance(module, VersatileConv2d) else None
    after = versatile_macs(geometry, decision.spec, layer.output_positions, rows=rows) if layer is not None else 0
    return LayerRow(
        name=decision.layer,
        decision="convert",
        shape=shape_text(geometry),
        spec=str(decision.spec),
        group_convolution=decision.spec.is_group_convolution(geometry),
        weights_before=geometry.weight_numbers,
        weights_after=decision.spec.weight_numbers(geometry),
        macs_before=ordinary_macs(layer) if layer is not None else 0,
        macs_after=after,
        unexplained=unexplained.get(decision.layer),
    )


def shape_text(geometry: ConvGeometry) -> str:
    """`64->128 3x3 /2`: channels, kernel, stride and groups where they are not 1."""
    text = f"{geometry.in_channels}->{geometry.out_channels} {geometry.kernel_size[0]}x{geometry.kernel_size[1]}"
    if geometry.stride != (1, 1):
        same = geometry.stride[0] == geometry.stride[1]
        text += f" /{geometry.stride[0]}" if same else f" /{geometry.stride[0]}x{geometry.stride[1]}"
    return text if geometry.groups == 1 else f"{text} {geometry.groups} groups"


def size_of(totals: Totals, file_bytes: int | None) -> Size:
    """A column of the table."""
    return Size(
        parameters=totals.numbers.parameters,
        weight_bytes=totals.numbers.weight_bytes,
        macs_method=totals.macs_method,
        macs_executed=totals.macs_executed,
        file_bytes=file_bytes,
        uncounted=dict(totals.uncounted) or None,
    )
