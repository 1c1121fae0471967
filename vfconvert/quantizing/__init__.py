"""ONNX files in eight and in sixteen bits, and what they keep of the outputs of the float32 file."""

from vfconvert.quantizing.eight_bits import quantize_int8 as quantize_int8
from vfconvert.quantizing.half import to_fp16 as to_fp16
from vfconvert.quantizing.judge import Precision as Precision
from vfconvert.quantizing.judge import judge as judge
