"""Building the network that `--arch` names; `FORMS` lists the ways to name one."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models

from vfconvert.errors import ArchitectureError, MissingPackageError, first_line
from vfconvert.user_code import import_file, modules_beside

FORMS = "torchvision:NAME, timm:NAME, package.module:factory or path/to/file.py:factory"


_LARGE = 2**20  # bytes
_aten = torch.ops.aten
_FILLS = {  # what initialises weights, without looking at anything else
    *(_aten.uniform_.default, _aten.normal_.default, _aten.fill_.Scalar, _aten.zero_.default),
    *(_aten.erfinv_.default, _aten.mul_.Scalar, _aten.mul_.Tensor, _aten.add_.Scalar, _aten.add_.Tensor),
    *(_aten.clamp_.default,),
}


def build_architecture(architecture: str, arguments: Mapping[str, object], *, unfilled: bool = False) -> nn.Module:
    """Build the network with freshly initialised weights; nothing is downloaded for torchvision and timm.

    `unfilled` leaves large weights without values, for others to take their place: that saves their memory and time.
    `arguments` are keyword arguments of the factory. The random state is left as found. Raises `ArchitectureError`
    and, for timm, `MissingPackageError`.
    """
    source, colon, name = architecture.rpartition(":")
    if not colon or not source or not name:
        meant = f"did you mean torchvision:{architecture}? " if architecture in models.list_models() else ""
        raise ArchitectureError(f"--arch {architecture}: {meant}expected {FORMS}")
    finder = _SOURCES.get(source, _from_file if source.endswith(".py") else _from_package)
    with _quiet(), modules_beside(source), _filling(unfilled):
        factory, fixed = finder(source, name)
        try:
            model = factory(**{**fixed, **arguments})
        except (Exception, SystemExit) as error:
            raise ArchitectureError(
                f"--arch {architecture}: building it with {_call(arguments)} raised {type(error).__name__} "
                f"({first_line(error)}); check the name and --arch-arg"
            ) from error
    if not isinstance(model, nn.Module):
        raise ArchitectureError(f"--arch {architecture}: returned a {type(model).__name__}, expected an nn.Module")
    return model


Factory = tuple[Callable[..., Any], dict[str, object]]  # with the arguments it needs to download nothing


def _torchvision(source: str, name: str) -> Factory:
    known = models.list_models()
    if name not in known:
        raise _unknown(source, name, known)
    builder = models.get_model_builder(name)
    offered = inspect.signature(builder).parameters
    return builder, {key: None for key in ("weights", "weights_backbone") if key in offered}


def _timm(source: str, name: str) -> Factory:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise MissingPackageError(
            f"--arch {source}:{name}: timm cannot be imported ({first_line(error)}); run: pip install vfconvert[timm]"
        ) from error
    if not timm.is_model(name.partition(".")[0]):  # after the dot comes the name of pretrained weights
        raise _unknown(source, name, timm.list_models())
    return timm.create_model, {"model_name": name, "pretrained": False}


def _from_package(source: str, name: str) -> Factory:
    try:
        module = importlib.import_module(source)
    except ModuleNotFoundError as error:
        raise ArchitectureError(
            f"--arch {source}:{name}: {first_line(error)}; install it, or expected {FORMS}"
        ) from error
    except (Exception, SystemExit) as error:
        raise _broken(source, name, error) from error
    return _attribute(module, source, name), {}


def _from_file(source: str, name: str) -> Factory:
    if not Path(source).expanduser().is_file():
        raise ArchitectureError(f"--arch {source}:{name}: no such file; check the path")
    try:
        module = import_file(source, "architecture")
    except (Exception, SystemExit) as error:
        raise _broken(source, name, error) from error
    return _attribute(module, source, name), {}


_SOURCES: dict[str, Callable[[str, str], Factory]] = {"torchvision": _torchvision, "timm": _timm}


def _attribute(module: ModuleType, source: str, name: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.split("."):  # also a class method that builds the network
        found = getattr(found, part, None)
    if found is None:
        raise _unknown(source, name, [key for key, value in vars(module).items() if callable(value)])
    if isinstance(found, nn.Module) or not callable(found):
        raise ArchitectureError(
            f"--arch {source}:{name}: is a {type(found).__name__}, expected a function or class that builds the network"
        )
    return found  # type: ignore[no-any-return]


def _unknown(source: str, name: str, known: Iterable[str]) -> ArchitectureError:
    near = difflib.get_close_matches(name, list(known), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "check the name"
    return ArchitectureError(f"--arch {source}:{name}: {source} has no {name!r}; {hint}")


def _broken(source: str, name: str, error: BaseException) -> ArchitectureError:
    return ArchitectureError(
        f"--arch {source}:{name}: importing {source} raised {type(error).__name__} ({first_line(error)}); correct it"
    )


def _call(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of a factory's making, and the random numbers it draws are given back."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


def _filling(unfilled: bool) -> contextlib.AbstractContextManager[object]:
    if not unfilled:
        return contextlib.nullcontext()
    mode: contextlib.AbstractContextManager[object] = _Unfilled()  # type: ignore[no-untyped-call]
    return mode


class _Unfilled(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, large parameters are left as they were allocated: untouched memory is none, and weights are to come."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operator's value, or its first argument unfilled."""
        first = args[0] if args else None
        if func in _FILLS and isinstance(first, nn.Parameter) and first.nbytes >= _LARGE:
            return first
        return func(*args, **(kwargs or {}))
