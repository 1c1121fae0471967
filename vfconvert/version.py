"""The version of the package and of what it runs on, in a file that imports no package."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version

__version__ = "0.1.0"


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """The versions that a result depends on: this package's, Python's, and those of `packages`."""
    found = {"vfconvert": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in packages}
