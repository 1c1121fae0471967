"""Converted networks in `.safetensors` files: what is written of them, and how they are rebuilt."""

from vfconvert.recipes.loading import load as load
