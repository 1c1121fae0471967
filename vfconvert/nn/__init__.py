"""Modules: the trainable versatile convolution, a Linear as the convolution that it is, and "SAME" padding."""

from vfconvert.nn.flattened import FlattenedConv as FlattenedConv
from vfconvert.nn.padding import SamePadding as SamePadding
from vfconvert.nn.versatile import VersatileConv2d as VersatileConv2d
