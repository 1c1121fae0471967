"""What every exporter's graph becomes before it is written: only what is computed, by our names, with stored banks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vfconvert.exporting.naming import FileNames
from vfconvert.exporting.onnx_compact import name_dimensions_, rename_, strip_
from vfconvert.exporting.onnx_weights import insert_weights_
from vfconvert.exporting.tracing import NETWORK_PREFIX
from vfconvert.nn import VersatileConv2d
from vfconvert.version import __version__

if TYPE_CHECKING:
    import onnx


def finish_(model: onnx.ModelProto, names: FileNames, layers: Mapping[str, tuple[str, VersatileConv2d]]) -> None:
    """Finish a graph whose inputs are the images and then a weight for each of `layers`, by its name; in place.

    Images and outputs get `names`. See `insert_weights_` for `layers`.
    """
    del model.graph.input[len(names.inputs) :]
    strip_(model)
    rename_(model.graph, names.inputs, names.outputs, NETWORK_PREFIX)
    name_dimensions_(model.graph)
    insert_weights_(model.graph, layers)
    model.producer_name, model.producer_version = "vfconvert", __version__
