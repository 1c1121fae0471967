"""Modules: the trainable versatile convolution, and the padding of "SAME" ones."""

from vfconvert.nn.padding import SamePadding as SamePadding
from vfconvert.nn.versatile import VersatileConv2d as VersatileConv2d
