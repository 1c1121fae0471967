"""Texts of several numbers: `32` or `32x64`, `0.5,0.5,0.5`, `3,224,224`. Each raises `ValueError` where it is none."""

from __future__ import annotations


def read_size(text: str) -> tuple[int, int]:
    """`32` is 32x32; `32x64` is a height of 32 and a width of 64."""
    height, cross, width = text.lower().partition("x")
    return (int(height), int(width if cross else height))


def read_numbers(text: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406`."""
    return tuple(float(part) for part in text.split(","))


def read_shape(text: str) -> tuple[int, int, int]:
    """`3,224,224`: channels, height, width."""
    channels, height, width = (int(part) for part in text.split(","))
    return channels, height, width
