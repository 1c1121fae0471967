"""Reading a float32 ONNX file, and writing another of the same inputs, outputs and notes in its place."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vfconvert.errors import ExportError, ParityError, VfconvertError
from vfconvert.exporting.cause import cause_line
from vfconvert.exporting.onnx_compact import rename_apart_, strip_
from vfconvert.files import atomic_path
from vfconvert.quantizing.sessions import open_session
from vfconvert.silence import silenced

if TYPE_CHECKING:
    import onnx

MOST_CHECKED = 8  # images that a file has to bear


def read_onnx(path: Path) -> onnx.ModelProto:
    """The file as a message.

    Raises `ExportError` where it is not an ONNX file.
    """
    import onnx

    try:
        return onnx.load(path)
    except Exception as error:
        raise ExportError(f"cannot read {path}: {cause_line(error)}; expected an ONNX file") from error


@contextmanager
def quietly(doing: str) -> Iterator[None]:
    """Within, a library works for us: it says nothing, leaves no path or log handler, and what it raises is ours."""
    path, handlers = list(sys.path), list(logging.root.handlers)
    try:
        with silenced():
            yield
    except (VfconvertError, MemoryError, OSError):  # what the machine lacks is no fault of the file
        raise
    except Exception as error:
        raise ExportError(f"{doing} failed: {cause_line(error)}; use the float32 file") from error
    finally:
        sys.path[:] = path  # importing onnxruntime.transformers appends its own folder
        logging.root.handlers[:] = handlers  # logging.warning() adds one where there is none


def plain_names(model: onnx.ModelProto) -> dict[str, str]:
    """For the inputs and outputs of a file, names that no value has that a quantizer makes (it adds "_scale")."""
    ends = (("input", model.graph.input), ("output", model.graph.output))
    return {value.name: f"vfconvert.{end}.{place}" for end, values in ends for place, value in enumerate(values)}


def write_like(source: Path, model: onnx.ModelProto, target: Path, images: Tensor | None) -> None:
    """Write `model`, which was made from the file `source`, with that one's inputs, outputs, metadata and producer.

    It has to pass the checker, to run, and to give finite outputs on the first of `images` `(N, C, H, W)`; else
    `ExportError` or `ParityError` is raised and nothing is left at `target`. `model` is changed; its inputs
    and outputs may have `plain_names`.
    """
    original = read_onnx(source)
    strip_(model)
    rename_apart_(model.graph, {plain: name for name, plain in plain_names(original).items()})
    model.metadata_props.extend(original.metadata_props)
    model.producer_name, model.producer_version = original.producer_name, original.producer_version
    for now, before in ((model.graph.input, original.graph.input), (model.graph.output, original.graph.output)):
        del now[:]
        now.extend(before)
    domains = {"", *(node.domain for node in model.graph.node)}
    for index in reversed(range(len(model.opset_import))):
        if model.opset_import[index].domain not in domains:
            del model.opset_import[index]
    with atomic_path(target) as temporary:
        temporary.write_bytes(model.SerializeToString())
        with quietly("checking the ONNX file"):
            from onnx import checker

            checker.check_model(str(temporary), full_check=True)
        reason = "gives numbers that are not finite, unlike that in float32; use the latter"
        _check_finite(temporary, "the written file", images, reason)


def check_source(source: Path, images: Tensor) -> None:
    """Raise `ParityError` where images, or the outputs that a file gives for the first of them, are not finite."""
    if not bool(torch.isfinite(images).all()):
        raise ParityError("the images hold numbers that are not finite; check them")
    _check_finite(source, str(source), images, "itself gives numbers that are not finite; check the images")


def _check_finite(path: Path, name: str, images: Tensor | None, otherwise: str) -> None:
    """Raise `ParityError` where a file does not open, or gives other than finite numbers on the first images."""
    session = open_session(path, threads=torch.get_num_threads(), name=name)
    if images is None or not len(images):
        return
    for output, numbers in session.run_all(images[:MOST_CHECKED]).items():
        if not bool(torch.isfinite(numbers).all()):
            raise ParityError(f"output '{output}': {name} {otherwise}")
