import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def assert_same_weights(got: nn.Module, wanted: nn.Module | Mapping[str, Tensor]) -> None:
    """Names, shapes, types and bits of two state dicts are the same."""
    expected = wanted.state_dict() if isinstance(wanted, nn.Module) else wanted
    state = got.state_dict()
    assert list(state) == list(expected), "other names"
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name


def write_architecture(path: object, body: str) -> str:
    """A file with a factory `network` of this body, as --arch names it."""
    with open(str(path), "w") as file:
        file.write(body)
    return f"{path}:network"


class Gadget:
    """Pickles to a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def touch(path: str) -> None:
    """A function of an installed package, as far as a pickle is concerned."""
    Path(path).touch()


def zipped(records: Mapping[str, bytes]) -> bytes:
    """An archive of these records."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()
