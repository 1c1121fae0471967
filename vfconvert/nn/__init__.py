"""Modules: the trainable versatile convolution."""

from vfconvert.nn.versatile import VersatileConv2d as VersatileConv2d
