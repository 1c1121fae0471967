from collections.abc import Mapping

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
