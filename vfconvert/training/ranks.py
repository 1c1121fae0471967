"""The processes that train together, as torchrun started them: one alone, several on a machine, several machines."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from vfconvert.container import processors
from vfconvert.errors import TrainingError

_PATIENCE = timedelta(hours=24)  # for the first process, which fits the network while the others wait

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # others may add what shared ones would not compute
_LOST = ("Connection closed", "Connection reset", "connection", "NCCL", "Gloo", "gloo")


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process: the `rank`-th of `world`, the `local`-th of the `beside` processes of its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0
    beside: int = 1

    @classmethod
    def of_environment(cls) -> Ranks:
        """As torchrun says in the environment; one process where it says nothing. Raises `TrainingError`."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if "WORLD_SIZE" not in os.environ:
            return cls()
        try:
            rank, world, local = (int(os.environ[name]) for name in names)
        except (KeyError, ValueError) as error:
            given = ", ".join(f"{name}={os.environ.get(name, '')}" for name in names)
            raise TrainingError(f"{given}: expected three numbers, as torchrun sets them; use it") from error
        beside = os.environ.get("LOCAL_WORLD_SIZE", "")  # not every launcher says this one
        return cls(rank, world, local, int(beside) if beside.isdecimal() else 1)

    @property
    def first(self) -> bool:
        """Whether this process is the one that fits, writes and reports."""
        return self.rank == 0

    @contextmanager
    def together(self, device: torch.device) -> Iterator[None]:
        """Within, the processes can talk: by NCCL on CUDA devices, else by Gloo."""
        if self.world == 1:
            yield
            return
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE)
        try:
            yield
        except RuntimeError as error:
            if self.first or not any(word in str(error) for word in _LOST):
                raise
            raise TrainingError("another process has stopped, and with it this one; see what that one says") from error
        finally:
            distributed.destroy_process_group()

    @contextmanager
    def with_all_threads(self) -> Iterator[None]:
        """Within, this process computes in as many threads as all of its machine together: the others wait for it."""
        count = torch.get_num_threads()
        torch.set_num_threads(max(count, min(count * self.beside, processors())))
        try:
            yield
        finally:
            torch.set_num_threads(count)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes; in place."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor

    def from_first(self, content: bytes, device: torch.device) -> bytes:
        """Bytes that the first process has, for all; what others give does not count."""
        if self.world == 1:
            return content
        size = torch.tensor([len(content)], device=device)
        distributed.broadcast(size, 0)
        held = torch.empty(int(size), dtype=torch.uint8, device=device)
        if self.first and content:
            held.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        distributed.broadcast(held, 0)
        return held.cpu().numpy().tobytes()

    def with_shared_norms(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model with statistics of the whole batch on CUDA; elsewhere those of the first process's share count."""
        if self.world == 1 or device.type != "cuda":
            return model
        return _replaced(model, _NORMS, _shared_norm)

    def wrapped(self, model: nn.Module, device: torch.device, *, frozen_norms: bool) -> nn.Module:
        """The model as it is to be called in training: gradients are averaged over all processes."""
        if self.world == 1:
            return model
        places = [device.index] if device.type == "cuda" else None
        known = inspect.signature(DistributedDataParallel).parameters  # newer versions of torch have another name
        buffers: dict[str, Any] = {
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": not frozen_norms
        }
        # heads for training alone are never called
        return DistributedDataParallel(model, device_ids=places, find_unused_parameters=True, **buffers)


def plain_norms(model: nn.Module) -> nn.Module:
    """The model with its own BatchNorms where these had statistics shared by processes; changed in place."""
    return _replaced(model, (_SharedNorm,), _own_norm)


class _SharedNorm(nn.SyncBatchNorm):
    """Knows which norm it stands for."""

    own: type[nn.Module]


def _shared_norm(norm: Any) -> nn.Module:
    made = _SharedNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.own = type(norm)
    return _with_state_of(made, norm)


def _own_norm(norm: Any) -> nn.Module:
    made = norm.own(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    return _with_state_of(made, norm)


def _with_state_of(made: nn.Module, norm: nn.Module) -> nn.Module:
    """The new norm with the old one's own parameters and statistics, in the same mode."""
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(made, name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(made, name, buffer)
    return made.train(norm.training)


def _replaced(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], made: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """The model with every module of exactly these classes made another; in place, one in several places once."""
    others = {module: made(module) for module in model.modules() if type(module) in kinds}
    for module in list(model.modules()):
        for name, child in module._modules.items():  # one that stands under two names under both
            if child in others:
                setattr(module, name, others[child])
    return others.get(model, model)
