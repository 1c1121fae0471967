"""Convert pretrained convolutional networks to versatile filters."""

from typing import TYPE_CHECKING

from vfconvert.version import __version__ as __version__

__all__ = ["Conversion", "__version__", "convert", "load"]

if TYPE_CHECKING:
    from vfconvert.api import Conversion as Conversion
    from vfconvert.api import convert as convert
    from vfconvert.recipes import load as load
else:
    _PLACES = {"Conversion": "vfconvert.api", "convert": "vfconvert.api", "load": "vfconvert.recipes"}

    def __getattr__(name: str) -> object:
        """What takes torchvision and more is imported on first use."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(_PLACES[name]), name)
