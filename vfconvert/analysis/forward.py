"""One forward pass that leaves the network as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn

from vfconvert.errors import InputShapeError, VfconvertError
from vfconvert.nn.several_inputs import inputs_of
from vfconvert.silence import silenced

Example = Tensor | tuple[Any, ...]
"""What the network is called with: one tensor, or a tuple of all its positional arguments."""


class Reached(BaseException):
    """What a pass was for has been seen; no Exception, so that no network takes it for one of its own."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within: evaluation mode, no gradients. After, whatever happens: modes, buffers and random state as before."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    devices = sorted({tensor.get_device() for tensor in model.parameters() if tensor.is_cuda})
    with torch.no_grad(), torch.random.fork_rng(devices):
        try:
            model.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training
            for module, name, buffer, saved in buffers:
                module._buffers[name] = buffer  # a forward may have put another in its place
                if not buffer.is_meta and not torch.equal(buffer, saved):
                    buffer.copy_(saved)


def run_once(model: nn.Module, example: Example) -> Any:
    """The network's output for the example, computed under `evaluating`.

    Raises `InputShapeError` where the network's forward fails, with the first line of what it said.
    """
    arguments = example if isinstance(example, tuple) else (example,)
    quiet = silenced() if isinstance(model, fx.GraphModule) else nullcontext()  # fx prints what it raises
    with evaluating(model), quiet:
        try:
            return model(*arguments)
        except (VfconvertError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # what a forward raises on a wrong shape is up to its author
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            inputs = inputs_of(model)
            given = f"an input of {shapes_text(arguments)}"
            if inputs is not None:
                given = f"inputs of {shapes_text(inputs.split(arguments[0]))}"
            raise InputShapeError(
                f"the network rejects {given}: {said}; give the shape it takes with --input-shape"
            ) from error


def shapes_text(arguments: tuple[Any, ...]) -> str:
    """Every tensor's shape, as `1x3x224x224`; other arguments by the name of their type."""
    return ", ".join(
        "x".join(map(str, value.shape)) if isinstance(value, Tensor) else type(value).__name__ for value in arguments
    )
