"""Files of converted networks for `torch.export.load` (.pt2): what torch's own compilers and runtimes start from.

A program holds its operators as text, which for a network of many small layers is as much as several of its layers'
weights. So this text is deflated, which torch's reader takes as it takes TorchScript's code, and no line of it says
where the network's source code was. The example stays out of the file.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.forward import evaluating
from vfconvert.errors import ExportError
from vfconvert.exporting.cause import cause_line
from vfconvert.exporting.sizes import check_other_sizes
from vfconvert.exporting.torchscript import METADATA_FILE
from vfconvert.files import atomic_path
from vfconvert.nn.several_inputs import opened
from vfconvert.silence import silenced

_ORIGINS = ("stack_trace", "source_fn_stack", "torch_fn", "from_node", "custom")  # of a node, for debugging
_ALIGNMENT = 64  # bytes: where torch's own writer lets records begin
_ZIP_HEADER = 30  # bytes before a record's name
_PADDING = b"FB"  # the kind of field that torch's own writer pads with


def export_program(
    model: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, str], dynamic_size: bool = False
) -> bool:
    """Write `model` in eval mode for `torch.export.load`; the model is left as it is. Whether the batch size varies.

    `example` `(B, C, H, W)` fixes all sizes but the batch (with `dynamic_size` neither height nor width); a network
    that computes with the very number of images is written for `B` images. One of several inputs
    (`vfconvert.nn.several_inputs`) is written with those. Outputs keep their structure, and every
    tensor is stored once. `metadata` becomes the extra file "vfconvert.json".

    Raises `ExportError` where torch cannot trace or store the network, and `UnwritableOutputError`; then nothing is
    left at `path`.
    """
    if dynamic_size:
        check_other_sizes(model, example)
    with atomic_path(path) as temporary:
        with silenced(), evaluating(model):
            archive, dynamic_batch = _archive(model, example, json.dumps(dict(metadata)), dynamic_size)
        temporary.write_bytes(archive.getbuffer())
    return dynamic_batch


def _archive(model: nn.Module, example: Tensor, metadata: str, dynamic_size: bool) -> tuple[io.BytesIO, bool]:
    """With a variable batch where that can be had, else with the batch of `example`."""
    try:
        try:
            return _saved(_program(model, example, True, dynamic_size), metadata), True
        except MemoryError:
            raise
        except Exception:  # whatever it is, it need not hold for a fixed batch
            return _saved(_program(model, example, False, dynamic_size), metadata), False
    except MemoryError:
        raise
    except Exception as error:
        what = "leave out --dynamic-size" if dynamic_size else "the network has to be rewritten there"
        raise ExportError(f"torch.export failed: {cause_line(error)}; {what}") from error


def _program(
    model: nn.Module, example: Tensor, dynamic_batch: bool, dynamic_size: bool
) -> torch.export.ExportedProgram:
    if dynamic_batch and example.shape[0] == 1:
        example = example.repeat(2, 1, 1, 1)  # a size of one is never traced as a variable
    sizes: dict[int, Any] = {0: torch.export.Dim("batch")} if dynamic_batch else {}
    if dynamic_size:  # as in `vfconvert.exporting.tracing`
        sizes |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    network, images = opened(model, example.clone())
    shapes: Any = (sizes,) * len(images) if sizes else None
    return torch.export.export(network, images, dynamic_shapes=shapes, strict=False)


def _saved(program: torch.export.ExportedProgram, metadata: str) -> io.BytesIO:
    program.example_inputs = None
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            for key in _ORIGINS:
                node.meta.pop(key, None)
    archive = io.BytesIO()
    torch.export.save(program, archive, extra_files={METADATA_FILE: metadata})
    return _deflated(archive)


def _deflated(archive: io.BytesIO) -> io.BytesIO:
    """The same records in the same order: text deflated, all else as it is and aligned."""
    result = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(result, "w") as target:
        for name in source.namelist():
            record = zipfile.ZipInfo(name)  # of no date: equal networks give equal files
            if name.endswith(".json"):
                record.compress_type = zipfile.ZIP_DEFLATED
            else:
                begin = result.tell() + _ZIP_HEADER + len(name.encode()) + len(_PADDING) + 2
                padding = -begin % _ALIGNMENT
                record.extra = _PADDING + padding.to_bytes(2, "little") + bytes(padding)
            target.writestr(record, source.read(name))
    return result
