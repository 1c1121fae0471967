"""Convert pretrained convolutional networks to versatile filters."""

from vfconvert.version import __version__ as __version__
