"""Texts of numbers: `32` or `32x64`, `0.5,0.5,0.5`, `3,224,224`. Each raises `ValueError` where it is none."""

from __future__ import annotations

from collections.abc import Iterable

MOST_PIXELS = 1_000_000  # of a side: the numbers of a pair of images of a million channels still have a count
SEEDS = (-(2**63), 2**64 - 1)  # the least and the largest that torch's generators take


def read_size(text: str) -> tuple[int, int]:
    """`32` is 32x32; `32x64` is a height of 32 and a width of 64."""
    height, cross, width = text.lower().partition("x")
    size = (int(height), int(width if cross else height))
    if not are_sides(size):
        raise ValueError(text)
    return size


def read_numbers(text: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406`."""
    return tuple(float(part) for part in text.split(","))


def read_shape(text: str) -> tuple[int, int, int]:
    """`3,224,224`: channels, height, width."""
    channels, height, width = (int(part) for part in text.split(","))
    if not are_sides((channels, height, width)):
        raise ValueError(text)
    return channels, height, width


def read_seed(text: str) -> int:
    """A whole number that seeds a generator."""
    seed = int(text)
    if not SEEDS[0] <= seed <= SEEDS[1]:
        raise ValueError(text)
    return seed


def are_sides(numbers: Iterable[int]) -> bool:
    """Whether an image, or a map of features, can be so many numbers high, wide or deep."""
    return all(1 <= number <= MOST_PIXELS for number in numbers)
