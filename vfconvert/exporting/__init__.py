"""Writing converted networks to files that other programs run."""

from vfconvert.exporting.onnx import ExportedOnnx as ExportedOnnx
from vfconvert.exporting.onnx import export_onnx as export_onnx
