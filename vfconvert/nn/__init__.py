"""Modules: the trainable versatile convolution, and a Linear as the convolution that it is."""

from vfconvert.nn.flattened import FlattenedConv as FlattenedConv
from vfconvert.nn.versatile import VersatileConv2d as VersatileConv2d
