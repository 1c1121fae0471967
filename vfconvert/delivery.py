"""Every file that was asked for: written to a temporary name, reopened by its own runtime, compared, then renamed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from vfconvert.analysis.forward import run_once
from vfconvert.analysis.graph import Network
from vfconvert.errors import ExportError, InputShapeError
from vfconvert.exporting.exported_program import export_program
from vfconvert.exporting.naming import FileNames
from vfconvert.exporting.onnx import export_onnx
from vfconvert.exporting.onnx_traced import check_traced_opset
from vfconvert.exporting.recipe import write_safetensors
from vfconvert.exporting.sizes import check_other_sizes
from vfconvert.exporting.torchscript import export_torchscript
from vfconvert.files import atomic_path, check_writable, sha256_of
from vfconvert.formats import SUFFIXES, format_of
from vfconvert.lowering.network import Lowered, lower
from vfconvert.nn.several_inputs import inputs_of
from vfconvert.ops.blocks import CANCELLING, VARIANTS
from vfconvert.options import ConversionOptions
from vfconvert.quantizing import judge, quantize_int8, to_fp16
from vfconvert.reporting.latency import PrecisionReport
from vfconvert.reporting.report import ArtefactReport, ParityReport
from vfconvert.temporary import scratch
from vfconvert.verification import (
    BATCH_SIZES,
    Parity,
    verify_detections,
    verify_onnx,
    verify_program,
    verify_recipe,
    verify_torchscript,
)

_CALIBRATED, _JUDGED, _ROUNDS = 256, 256, 15  # images for eight bits, images to judge by, timed rounds


@dataclass(frozen=True, kw_only=True, eq=False)
class Delivery:
    """What is written: the trainable network (of which the recipe is made) and its inference form.

    `teacher` is the original, `example` `(1, C, H, W)`; `judging` `(N, C, H, W)` are images to compare on,
    `calibration` images to find the ranges of activations with; `plain`: see `vfconvert.plain`; `varying`: the outputs
    vary in number with what is found, and the example is an image in which something is; `class_maps`: the main output
    is logits of every pixel; `network` is the traced graph, None where there is none; `names`: see `file_names`.
    """

    teacher: nn.Module
    student: nn.Module
    inference: Lowered
    example: Tensor
    judging: Tensor
    calibration: Tensor
    metadata: Mapping[str, str]
    plain: bool = False
    varying: bool = False
    class_maps: bool = False
    network: Network | None = None
    names: FileNames | None = None

    @property
    def for_half(self) -> Delivery:
        """What a file in half precision is made of: no full filter minus its edges, which would cancel there."""
        variants = self.inference.variants
        if self.network is None or CANCELLING not in variants.values():
            return self
        others = {name: VARIANTS[0] if form == CANCELLING else form for name, form in variants.items()}
        return replace(self, inference=lower(self.student, self.network, others))


def paths_of(options: ConversionOptions) -> dict[str, Path]:
    """The file of every format asked for; `--output` names it where there is one format, else the stem of all."""
    formats = tuple(dict.fromkeys(options.formats))
    if options.output is not None and len(formats) == 1 and not _is_of_another(options.output, formats[0]):
        return {formats[0]: options.output}
    stem = options.output if options.output is not None else options.model
    found = {}
    for name in formats:
        path = _suffixed(stem, SUFFIXES[name], replace=stem == options.model)
        found[name] = path if path != options.model else stem.with_suffix(f".versatile{SUFFIXES[name]}")
    return found


def _is_of_another(path: Path, name: str) -> bool:
    """Whether a path has the suffix of a format that is not this one."""
    return format_of(path) not in (None, name)


def _suffixed(stem: Path, suffix: str, *, replace: bool) -> Path:
    """The stem with this suffix, in place of one of a format: `net.v2` is no name with a suffix."""
    known = replace or format_of(stem) is not None
    return stem.with_suffix(suffix) if known else stem.with_name(stem.name + suffix)


def precision_paths(options: ConversionOptions) -> dict[str, Path]:
    """The ONNX files of further precisions that are asked for, beside that in float32."""
    wanted = [name for name, asked in (("fp16", options.precision == "fp16"), ("int8", options.int8)) if asked]
    if not wanted:
        return {}
    files = paths_of(options)
    if "onnx" not in files:
        raise ExportError(f"{' and '.join(wanted)}: made from the ONNX file, which --format leaves out; add onnx")
    return {name: files["onnx"].with_suffix(f".{name}.onnx") for name in wanted}


def deliver(
    delivery: Delivery, options: ConversionOptions, outputs: ExitStack
) -> tuple[tuple[ArtefactReport, ...], tuple[PrecisionReport, ...]]:
    """Write and compare every format and precision; files appear when `outputs` is left without an exception.

    Raises `ExportError`, `ParityError` and `UnwritableOutputError`; then none of the files appears (unless it is the
    renaming itself that fails: those renamed before stay, each complete).
    """
    if delivery.varying:
        check_varying(options, delivery.teacher)
    written: list[ArtefactReport] = []
    precisions: tuple[PrecisionReport, ...] = ()
    for name, path in paths_of(options).items():
        readable = outputs.enter_context(atomic_path(readable_of(path))) if name == "safetensors" else None
        temporary = outputs.enter_context(atomic_path(path))
        written.append(_one(delivery, options, name, path, temporary, readable))
        if name == "onnx" and precision_paths(options):
            precisions = _precisions(delivery, options, temporary, precision_paths(options), outputs)
    return tuple(written), precisions


def deliver_precision(
    delivery: Delivery, options: ConversionOptions, name: str, path: Path, outputs: ExitStack
) -> tuple[PrecisionReport, ...]:
    """Write one ONNX file in "fp16" or "int8", of one in float32 that is compared as always and does not stay.

    Returns the table of both networks in both precisions. Raises what `deliver` raises.
    """
    if delivery.varying:
        check_varying(options, delivery.teacher)
    check_writable(path)
    source = delivery.for_half if name == "fp16" else delivery
    with scratch() as folder:
        converted = folder / "converted.onnx"
        _one(source, options, "onnx", converted, converted, None)
        return _precisions(source, options, converted, {name: path}, outputs)


def _precisions(
    delivery: Delivery, options: ConversionOptions, converted: Path, targets: Mapping[str, Path], outputs: ExitStack
) -> tuple[PrecisionReport, ...]:
    """The further files, and a table of the original and the converted network in every precision."""
    calibration, judging, names = delivery.calibration[:_CALIBRATED], delivery.judging[:_JUDGED], delivery.names
    with scratch() as folder:
        original = folder / "original.onnx"
        export_onnx(delivery.teacher, delivery.example, original, metadata={}, opset=options.opset, names=names)
        files, ours = {"original": original}, {"converted": converted}
        for name, target in targets.items():
            beside, temporary = folder / f"{name}.onnx", outputs.enter_context(atomic_path(target))
            if name == "int8":
                quantize_int8(original, beside, calibration)
                layers = delivery.inference.whole_layers(delivery.student)
                quantize_int8(converted, temporary, calibration, layers)
            else:
                to_fp16(original, beside, calibration)
                to_fp16(converted, temporary, calibration)
            files[f"original {name}"], ours[f"converted {name}"] = beside, temporary
        files.update(ours)
        found = judge(
            files, judging, threads=options.threads, rounds=_ROUNDS, class_maps=delivery.class_maps, named=names is None
        )
    finals = {f"converted {name}": str(target) for name, target in targets.items()}
    return tuple(
        PrecisionReport(
            name=one.name,
            path=finals.get(one.name),
            bytes=one.bytes,
            seconds=one.milliseconds / 1e3,
            measure=one.agreement.measure,
            value=one.agreement.value,
            relative_error=one.agreement.relative_error,
        )
        for one in found
    )


def check_varying(options: ConversionOptions, network: nn.Module) -> None:
    """Raise `ExportError` where a network is to be written in what cannot hold outputs that vary in number."""
    if inputs_of(network) is not None and options.formats not in ((), ("safetensors",)):
        raise ExportError(
            "the outputs of the network vary in number with what it finds, and files of such take one input; "
            "write --format safetensors"
        )
    wishes = [f"--format {name}" for name in options.formats if name not in ("onnx", "safetensors")]
    wishes += ["--precision fp16"] if options.precision == "fp16" else []
    wishes += ["--int8"] if options.int8 else []
    wishes += ["--dynamic-size"] if options.dynamic_size else []
    if wishes:
        raise ExportError(
            f"{wishes[0]}: not for a network whose outputs vary in number with what it finds; "
            "write --format onnx in float32 for one size, or --format safetensors"
        )
    if "onnx" in options.formats:
        check_traced_opset(options.opset)


def readable_of(path: Path) -> Path:
    """The recipe as a file for people, beside the safetensors file that holds it too."""
    return path.with_suffix(".json")


def _one(
    delivery: Delivery, options: ConversionOptions, name: str, path: Path, temporary: Path, readable: Path | None
) -> ArtefactReport:
    model, example, metadata = delivery.inference.model, delivery.example, delivery.metadata
    student, judging = delivery.student, delivery.judging
    any_size, names = options.dynamic_size, delivery.names
    sizes, further = _other_sizes(student, example) if any_size else ((), ())
    dynamic = True
    if name == "onnx":
        dynamic = export_onnx(
            model,
            example,
            temporary,
            metadata=metadata,
            opset=options.opset,
            dynamic_size=any_size,
            varying=delivery.varying,
            names=names,
        ).dynamic_batch
        if delivery.varying:
            parity = verify_detections(temporary, student, judging, names=names)
        else:
            parity = verify_onnx(temporary, student, judging, sizes=sizes, further=further, names=names)
    elif name == "torchscript":
        if any_size:
            check_other_sizes(model, example)
        dynamic = export_torchscript(model, example, temporary, metadata=metadata)
        batches: tuple[int, ...] = BATCH_SIZES if dynamic else (len(example),)  # such a file never says so itself
        parity = verify_torchscript(temporary, student, judging, batch_sizes=batches, sizes=sizes, further=further)
    elif name == "pt2":
        dynamic = export_program(model, example, temporary, metadata=metadata, dynamic_size=any_size)
        parity = verify_program(temporary, student, judging, sizes=sizes, further=further)
    else:
        write_safetensors(
            student,
            temporary,
            architecture=options.arch,
            architecture_arguments=options.arch_args,
            metadata=metadata,
            variants=delivery.inference.variants,
            input_shape=tuple(example.shape[1:]),
            readable=readable,
            plain=delivery.plain,
        )
        parity = verify_recipe(temporary, student, judging, like=delivery.teacher, lowered=model is not student)
    return ArtefactReport(
        format=name,
        path=str(path),
        bytes=temporary.stat().st_size,
        sha256=sha256_of(temporary),
        parity=_parity_report(parity, dynamic),
    )


def _other_sizes(model: nn.Module, example: Tensor) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Heights and widths at which a file of any size is compared besides: larger, smaller, wide, tall, no multiples.

    The first two the file has to take; the others as far as the network takes them: there it may refuse to run, and
    must not give other numbers.
    """
    height, width = example.shape[2:]
    step = 32 if min(height, width) >= 64 else 2  # networks often want multiples of their strides
    larger = (height // 2 // step * step + height, width // 2 // step * step + width)
    further = [(larger[0], width), (height + step // 2 + 1, width + 3)]
    further += [(height - step, width - step)] if min(height, width) > step else []
    return (larger, (height, larger[1])), tuple(size for size in further if _takes(model, example, size))


def _takes(model: nn.Module, example: Tensor, size: tuple[int, int]) -> bool:
    try:
        run_once(model, example.new_zeros(1, example.shape[1], *size))
    except InputShapeError:
        return False
    return True


def _parity_report(parity: Parity, dynamic_batch: bool) -> ParityReport:
    return ParityReport(
        maximum_error=parity.maximum_error,
        relative_error=parity.relative_error,
        tolerance=parity.tolerance,
        batch_sizes=parity.batch_sizes,
        runtime=f"{parity.runtime} {parity.runtime_version}",
        dynamic_batch=dynamic_batch,
    )
