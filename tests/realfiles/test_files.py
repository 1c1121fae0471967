from pathlib import Path

import numpy as np
import pytest
from _pytest.outcomes import Skipped

from tests.realfiles.files import assert_near, packaged


def test_what_is_not_installed_is_skipped_with_a_reason() -> None:
    with pytest.raises(Skipped, match=r"no_such_package is not installed: pip install '.\[real\]'"):
        packaged("no_such_package", "model.onnx")


def test_what_is_installed_is_found() -> None:
    assert packaged("onnxruntime", "__init__.py").is_file()
    assert isinstance(packaged("onnxruntime", "x"), Path)


@pytest.mark.parametrize(
    "got", [[np.array([1.0, 2.1])], [np.array([[1.0, 2.0]])], [np.array([1.0, 2.0])] * 2], ids=["far", "shape", "count"]
)
def test_assert_near_sees_other_outputs(got: list[np.ndarray]) -> None:
    wanted = [np.array([1.0, 2.0])]
    assert_near([wanted[0] + 0.01], wanted, 0.01)
    with pytest.raises(AssertionError, match=r"outputs (of other shapes|too far)"):
        assert_near(got, wanted, 0.01)
