"""What every command does first: load the network, run it once, trace it, and decide about its layers."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.forward import run_once
from vfconvert.analysis.graph import Network, close, trace
from vfconvert.analysis.parts import Part, parts_of
from vfconvert.analysis.profile import Profile, profile
from vfconvert.analysis.totals import Totals, totals_of
from vfconvert.budget.options import Subject
from vfconvert.data.examples import Examples
from vfconvert.errors import DeviceError, InputShapeError, UnsupportedModelError, first_line
from vfconvert.inputs import Source, source_of
from vfconvert.linears import flattened_linears, kept_linears
from vfconvert.loading import LoadedModel, load_model
from vfconvert.loading.onnx_file import ImportedNetwork, check_onnx, refuse_shape, refuse_sizes
from vfconvert.loading.onnx_inputs import batch_of
from vfconvert.measuring.runtime import onnx_session
from vfconvert.nn.flattened import with_flattened_convs
from vfconvert.nn.several_inputs import joined, opened, shapes_of
from vfconvert.options import ConversionOptions
from vfconvert.plain import made_plain
from vfconvert.plan_choice import linears_wanted, plan_of
from vfconvert.planning import Keep, Plan
from vfconvert.several import stated_shape, wanted_inputs


class Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Within, time counts for this stage."""
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The teacher, in evaluation and float32 on the device, with what is known of it.

    `plan` converts what the options allow; `network` is None where the control flow cannot be traced, and `parts` are
    those of it that can; `example` is `(1, C, H, W)`. A network of several inputs takes them as one
    (`vfconvert.nn.several_inputs`). `original` is the teacher of ordinary layers: the teacher itself,
    or with the same numbers the network in which some Linear layers are no convolutions yet; `linears` are those that
    stay Linear; `plain` names the layers of the loaded network whose places plain ones took.
    """

    loaded: LoadedModel
    teacher: nn.Module
    original: nn.Module
    linears: tuple[Keep, ...]
    network: Network | None
    layers: Profile
    before: Totals
    plan: Plan
    source: Source
    example: Tensor
    device: torch.device
    plain: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()

    @property
    def norms(self) -> dict[str, str]:
        """Layer -> the BatchNorm that alone reads its output."""
        return _norms(self.network, self.parts)

    @property
    def subject(self) -> Subject:
        """What a plan is searched for."""
        return Subject(
            teacher=self.teacher,
            original=self.original,
            network=self.network,
            layers=self.layers,
            plan=self.plan,
            before=self.before,
            sha256=self.loaded.sha256,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What a caller holds in memory: the network in place of the file, the examples in place of `--data`.

    `plan` is what the file of `--plan` holds.
    """

    loaded: LoadedModel | None = None
    examples: Examples | None = None
    plan: bytes | None = None


def prepare(options: ConversionOptions, clock: Clock, given: Given | None = None) -> Prepared:
    """Load and look at the model. Raises the errors of `vfconvert.errors`."""
    device, given = _device(options.device), given or Given()
    with clock.stage("load"):
        loaded = given.loaded or load_model(
            options.model,
            architecture=options.arch,
            architecture_arguments=options.arch_args,
            trust_pickle=options.trust_pickle,
        )
        teacher = copy.deepcopy(loaded.model).float().eval().to(device).requires_grad_(False)
    with clock.stage("plan"):
        refuse_sizes(loaded.path, loaded.inputs)
        inputs = wanted_inputs(teacher, options, given.examples, loaded.inputs)
        source = source_of(options, teacher, stated_shape(loaded.inputs), given.examples, inputs)
        teacher = teacher if inputs is None else joined(teacher, inputs)
        if loaded.inputs:
            refuse_shape(loaded.path, loaded.inputs, shapes_of(teacher, source.shape) or (source.shape,))
        example = torch.zeros(1, *source.shape, device=device)
        run_once(teacher, example)  # its error says more than what follows
        noise = torch.randn(2, *source.shape, generator=torch.Generator().manual_seed(options.seed))
        _check_batches(teacher, noise.to(device))
        if loaded.inputs:
            _check_import(loaded, teacher, noise.to(device))
        teacher, plain = _plain(teacher, noise.to(device))
        layers = profile(teacher, example)
        network, original, asked = trace(teacher, noise.to(device)), teacher, linears_wanted(options, given.plan)
        flattened = flattened_linears(teacher, layers, network)
        chosen = {linear.name: linear.features for linear in flattened if linear.reason is None}
        if asked and chosen:
            teacher = with_flattened_convs(teacher, chosen)
            layers, network = profile(teacher, example), trace(teacher, noise.to(device))
        parts = parts_of(teacher, noise.to(device)) if network is None else ()
        plan = plan_of(options, teacher, layers, _norms(network, parts), given.plan)
        before = totals_of(teacher, layers, count_macs(teacher, example))
    return Prepared(
        loaded=loaded,
        teacher=teacher,
        original=original,
        linears=kept_linears(flattened, asked=asked),
        network=network,
        layers=layers,
        before=before,
        plan=plan,
        source=source,
        example=example,
        device=device,
        plain=plain,
        parts=parts,
    )


def _norms(network: Network | None, parts: Sequence[Part]) -> dict[str, str]:
    """Layer -> the BatchNorm that alone reads its output, as far as there is a trace."""
    if network is not None:
        return dict(network.following_norm)
    return {layer: norm for part in parts for layer, norm in part.following_norm.items()}


def _plain(model: nn.Module, images: Tensor) -> tuple[nn.Module, tuple[str, ...]]:
    """The network of plain layers where it runs and computes the same, else as it is."""
    made, names = made_plain(model)
    if not names:
        return model, names
    try:
        same = close(run_once(made, images), run_once(model, images))
    except InputShapeError:  # a forward that reaches into what was replaced
        same = False
    return (made, names) if same else (model, ())


def _check_batches(model: nn.Module, pair: Tensor) -> None:
    """A network that has run on one image must run on several, since it is fitted on batches."""
    try:
        run_once(model, pair)
    except InputShapeError as error:
        raise InputShapeError(
            f"the network takes one image but not a batch of {len(pair)}, as the fit needs it ({error.__cause__}); "
            "make its forward independent of the number of images"
        ) from error


def _check_import(loaded: LoadedModel, teacher: nn.Module, images: Tensor) -> None:
    """That an ONNX file was understood is seen by what it computes."""
    wanted = batch_of(loaded.inputs) or 1
    images = images.repeat(-(-wanted // len(images)), 1, 1, 1) if wanted > len(images) else images

    def run(arrays: dict[str, Any]) -> list[Any]:
        try:
            found: list[Any] = session.run(None, arrays)
        except Exception as error:  # of ONNX Runtime's own kinds
            raise _does_not_run(loaded.path, error) from error
        return found

    try:
        session = onnx_session(loaded.path, threads=torch.get_num_threads())
    except Exception as error:
        raise _does_not_run(loaded.path, error) from error
    network, each = opened(teacher, images)
    check_onnx(loaded.path, ImportedNetwork(network, loaded.inputs), each, run)


def _does_not_run(path: Path, error: Exception) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path}: ONNX Runtime does not run the file, so that nothing can be compared with it ({first_line(error)}); "
        "export it again"
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device without memory has no value to give
    except (RuntimeError, AssertionError) as error:
        said = str(error).strip().splitlines()[0]
        raise DeviceError(f"--device {name}: {said}; use cpu, or a device that this torch can see") from error
    return device
