"""Convert pretrained convolutional networks to versatile filters."""

from typing import TYPE_CHECKING

from vfconvert.version import __version__ as __version__

__all__ = [
    "BatchSummary",
    "BenchReport",
    "Conversion",
    "Inspection",
    "NetworkPlan",
    "__version__",
    "batch",
    "bench",
    "convert",
    "inspect",
    "load",
    "plan",
]

if TYPE_CHECKING:
    from vfconvert.api.benching import bench as bench
    from vfconvert.api.conversion import Conversion as Conversion
    from vfconvert.api.conversion import convert as convert
    from vfconvert.api.inspecting import Inspection as Inspection
    from vfconvert.api.inspecting import inspect as inspect
    from vfconvert.api.inspecting import plan as plan
    from vfconvert.batch_summary import BatchSummary as BatchSummary
    from vfconvert.benching.report import BenchReport as BenchReport
    from vfconvert.many import batch as batch
    from vfconvert.network_plan import NetworkPlan as NetworkPlan
    from vfconvert.recipes import load as load
else:
    _PLACES = {
        "BatchSummary": "vfconvert.batch_summary",
        "BenchReport": "vfconvert.benching.report",
        "Conversion": "vfconvert.api.conversion",
        "Inspection": "vfconvert.api.inspecting",
        "NetworkPlan": "vfconvert.network_plan",
        "batch": "vfconvert.many",
        "bench": "vfconvert.api.benching",
        "convert": "vfconvert.api.conversion",
        "inspect": "vfconvert.api.inspecting",
        "load": "vfconvert.recipes",
        "plan": "vfconvert.api.inspecting",
    }

    def __getattr__(name: str) -> object:
        """What takes torchvision and more is imported on first use."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(_PLACES[name]), name)

    def __dir__() -> list[str]:
        """What there is, for completion."""
        return sorted({*globals(), *_PLACES})
