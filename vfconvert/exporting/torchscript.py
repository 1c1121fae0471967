"""TorchScript files of converted networks, traced: they run where torch does, libtorch included, without this package.

A trace holds every operator that the network ran, and each tensor that it read once, however often and under
whatever names; views share the tensor they look into. Batch, height and width stay variable wherever the network
itself computes with them by tensor operators alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import evaluating
from vfconvert.errors import ExportError
from vfconvert.exporting.cause import cause_line
from vfconvert.files import atomic_path
from vfconvert.nn.several_inputs import opened
from vfconvert.silence import silenced

METADATA_FILE = "vfconvert.json"  # in the archive, among its extra files


def export_torchscript(model: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, str]) -> bool:
    """Write `model` in eval mode, traced on `example` `(B, C, H, W)`, for `torch.jit.load`; it is left as it is.

    A network of several inputs (`vfconvert.nn.several_inputs`) is traced with those.

    Returns whether the file runs for other batch sizes: a network that computes with the very number of images has it
    fixed.

    Outputs keep their structure: a tensor, or tuples, lists and dictionaries of tensors (any other mapping comes back
    as a dictionary). Branches that depend on numbers are fixed as `example` takes them, without a word from torch:
    compare the file by `verify_torchscript`. `metadata` becomes the extra file "vfconvert.json".

    Raises `ExportError` where torch cannot trace or store the network, and `UnwritableOutputError`; then nothing is
    left at `path`.
    """
    with atomic_path(path) as temporary:
        with silenced(), evaluating(model):
            archive, dynamic_batch = _archive(model, example, json.dumps(dict(metadata)))
        temporary.write_bytes(archive.getbuffer())
    return dynamic_batch


def _archive(model: nn.Module, example: Tensor, metadata: str) -> tuple[io.BytesIO, bool]:
    archive = io.BytesIO()  # not the path itself, whose name would go into the file
    network, images = opened(model, example.clone())
    try:
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            network, images, check_trace=False, strict=False
        )
        torch.jit.save(traced, archive, _extra_files={METADATA_FILE: metadata})
    except MemoryError:
        raise
    except Exception as error:  # what torch raises has no common type
        raise ExportError(
            f"TorchScript export failed: {cause_line(error)}; the network has to be rewritten there, and may return "
            "only tensors, and tuples, lists and dictionaries of one kind of them"
        ) from error
    return archive, _runs(traced, [torch.cat([image, image]) for image in opened(model, example)[1]])


def _runs(traced: torch.jit.ScriptModule, images: Sequence[Tensor]) -> bool:
    try:
        traced(*images)
    except RuntimeError:  # the shapes that the trace has fixed do not fit
        return False
    return True
