"""A network that the caller holds, as if it had been read from a file."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from vfconvert.errors import UnsupportedModelError, first_line
from vfconvert.loading.model import LoadedModel, checked


def loaded_module(model: nn.Module) -> LoadedModel:
    """A copy of the network on the CPU and in evaluation mode; the caller's stays as it is.

    Its path is no file but a name like `<ResNet>`; its size is that of its tensors, its digest that of their names and
    bytes. Raises what a network in a file raises, and `UnsupportedModelError` where it cannot be copied.
    """
    name = f"<{type(model).__name__}>"
    try:
        copied = copy.deepcopy(model)
    except Exception as error:  # any type: the classes are the caller's
        raise UnsupportedModelError(
            f"{name}: cannot be copied ({type(error).__name__}: {first_line(error)}), and the original is never "
            "changed; make it work with copy.deepcopy"
        ) from error
    network = checked(copied, name)
    state = network.state_dict()
    return LoadedModel(
        model=network.cpu().eval(),
        path=Path(name),
        format="module",
        architecture=None,
        trusted=False,
        was_training=model.training,
        key="",
        skipped=(),
        size_bytes=sum(value.nbytes for value in state.values() if isinstance(value, Tensor)),
        sha256=_digest(network),
    )


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            flat = value.detach().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()
