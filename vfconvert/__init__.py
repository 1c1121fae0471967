"""Convert pretrained convolutional networks to versatile filters."""

from typing import TYPE_CHECKING

from vfconvert.version import __version__ as __version__

__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from vfconvert.recipes import load as load
else:

    def __getattr__(name: str) -> object:
        """`load` on first use, since it takes torchvision."""
        if name != "load":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from vfconvert.recipes import load

        return load
