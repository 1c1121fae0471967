"""TorchScript files and exported programs pass where they compute the same, and fail for every kind of difference."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vfconvert.errors import ParityError
from vfconvert.exporting.exported_program import export_program
from vfconvert.exporting.torchscript import export_torchscript
from vfconvert.silence import silenced
from vfconvert.verification import verify_program, verify_torchscript

IMAGES = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Pooling(nn.Module):
    """`(B, 3, H, W)` to `(B, 4)` and the index of the largest; it writes into its input."""

    def __init__(self, make: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.conv, self.norm, self.make = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), make

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.make(self.norm(self.conv(x.mul_(2)))).mean((2, 3))
        return {"out": logits, "index": logits.argmax(1)}


@dataclass(frozen=True)
class Format:
    name: str
    runtime: str
    suffix: str
    export: Callable[..., object]
    verify: Callable[..., object]
    alter: Callable[[Path], None]


def _alter_torchscript(path: Path) -> None:
    with silenced(), torch.no_grad():
        module = torch.jit.load(path)
        module.conv.weight[0, 0, 0, 0] += 0.05
        torch.jit.save(module, path)


def _alter_program(path: Path) -> None:
    program = torch.export.load(path)
    with torch.no_grad():
        program.state_dict["conv.weight"][0, 0, 0, 0] += 0.05
    torch.export.save(program, path)


FORMATS = [
    Format("TorchScript", "torch.jit", ".pt", export_torchscript, verify_torchscript, _alter_torchscript),
    Format("torch.export", "torch.export", ".pt2", export_program, verify_program, _alter_program),
]


@pytest.fixture(params=FORMATS, ids=lambda form: form.name)
def form(request: pytest.FixtureRequest) -> Format:
    return request.param


@pytest.fixture
def model() -> Pooling:
    torch.manual_seed(3)
    return Pooling().eval()


@pytest.fixture
def path(form: Format, model: Pooling, tmp_path: Path) -> Path:
    file = tmp_path / f"model{form.suffix}"
    form.export(model, IMAGES[:1], file, metadata={})
    return file


def test_verify_passes_and_names_its_figures(form: Format, path: Path, model: Pooling) -> None:
    model.train()
    model.norm.eval()
    images = IMAGES.clone()
    parity = form.verify(path, model, images)
    assert torch.equal(images, IMAGES)
    assert [module.training for module in model.modules()] == [True, True, False]
    assert [(c.output, c.batch) for c in parity.comparisons] == [
        (output, batch) for batch in (1, 2, 5) for output in ("out", "index")
    ]
    assert {comparison.size for comparison in parity.comparisons} == {None}
    with torch.no_grad():
        expected = float(model.eval()(IMAGES[:2].clone())["out"].abs().max())
    assert parity.comparisons[2].reference_magnitude == pytest.approx(expected, rel=1e-6)
    assert parity.relative_error <= 1e-6
    assert (parity.tolerance, parity.runtime, parity.runtime_version) == (1e-4, form.runtime, torch.__version__)


def test_verify_fails_for_altered_weights(form: Format, path: Path, model: Pooling) -> None:
    form.alter(path)
    expected = r"output 'out' at batch 1: max\|Δ\| is .* at max\|y\| .*, relative error .*, allowed 0.0001"
    with pytest.raises(ParityError, match=expected):
        form.verify(path, model, IMAGES)
    form.verify(path, model, IMAGES, tolerance=0.5)


def test_verify_fails_for_a_difference_just_beyond_tolerance(form: Format, path: Path, model: Pooling) -> None:
    other = copy.deepcopy(model)
    other.make = lambda y: torch.relu(y) * (1 + 1.1e-4)
    with pytest.raises(ParityError, match=r"output 'out' at batch 1: .*relative error 0.00011, allowed 0.0001"):
        form.verify(path, other, IMAGES)
    form.verify(path, other, IMAGES, tolerance=1.2e-4)


def test_verify_refuses_a_file_that_does_not_open(form: Format, path: Path, model: Pooling) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ParityError, match=rf"^{form.name} cannot open the file: [^\n]+; do not use it$"):
        form.verify(path, model, IMAGES)


def test_verify_refuses_a_file_that_does_not_run(form: Format, path: Path, model: Pooling) -> None:
    wider = copy.deepcopy(model)
    wider.conv = nn.Conv2d(5, 4, 3)
    with pytest.raises(
        ParityError, match=rf"^{form.name} cannot run the file at batch 1: [^\n]+; do not use the file$"
    ):
        form.verify(path, wider, torch.rand(2, 5, 6, 6))


def test_verify_refuses_other_outputs(form: Format, path: Path, model: Pooling) -> None:
    with pytest.raises(ParityError, match="outputs at batch 2: got out, index, expected output"):
        form.verify(path, nn.Sequential(model.conv, model.norm), IMAGES, batch_sizes=[2])


def test_verify_refuses_to_compare_nothing(form: Format, path: Path, model: Pooling) -> None:
    with pytest.raises(ParityError, match="got 0 images and 3 batch sizes"):
        form.verify(path, model, IMAGES[:0])


def test_verify_torchscript_fails_where_the_trace_fixed_the_batch(tmp_path: Path) -> None:
    model, path = Pooling(lambda y: y.view(int(y.shape[0]), 4, 4, 4)).eval(), tmp_path / "model.pt"
    export_torchscript(model, IMAGES[:2], path, metadata={})
    assert verify_torchscript(path, model, IMAGES, batch_sizes=[2]).batch_sizes == (2,)
    with pytest.raises(ParityError, match="TorchScript cannot run the file at batch 5: RuntimeError"):
        verify_torchscript(path, model, IMAGES, batch_sizes=[2, 5])


def test_verify_program_compares_a_fixed_batch_at_its_size(tmp_path: Path) -> None:
    model, path = Pooling(lambda y: y.view(3, 4, 4, 4)).eval(), tmp_path / "model.pt2"
    assert not export_program(model, IMAGES[:3], path, metadata={})
    assert verify_program(path, model, IMAGES).batch_sizes == (3,)


SIZES = [(9, 7), (12, 12)]


def test_verify_torchscript_compares_further_sizes(tmp_path: Path, model: Pooling) -> None:
    path = tmp_path / "model.pt"
    export_torchscript(model, IMAGES[:1], path, metadata={})
    parity = verify_torchscript(path, model, IMAGES, batch_sizes=[1, 3], sizes=SIZES)
    assert [(c.batch, c.size) for c in parity.comparisons if c.output == "out"] == [
        (batch, size) for size in (None, *SIZES) for batch in (1, 3)
    ]
    assert len({comparison.reference_magnitude for comparison in parity.comparisons if comparison.output == "out"}) == 6
    taller = Pooling(lambda y: torch.relu(y) * int(y.shape[2])).eval()
    taller.load_state_dict(model.state_dict())
    export_torchscript(taller, IMAGES[:1], path, metadata={})
    verify_torchscript(path, taller, IMAGES)
    with pytest.raises(ParityError, match=r"output 'out' at batch 2 and size 9x7: .*relative error 0.429"):
        verify_torchscript(path, taller, IMAGES, batch_sizes=[2], sizes=SIZES)


def test_verify_program_compares_further_sizes(tmp_path: Path, model: Pooling) -> None:
    path = tmp_path / "model.pt2"
    export_program(model, IMAGES[:1], path, metadata={})
    with pytest.raises(ParityError, match=r"torch.export cannot run the file at batch 1 and size 9x7: [^\n]+$"):
        verify_program(path, model, IMAGES, sizes=SIZES)
    shapes = (
        {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)},
    )
    torch.export.save(torch.export.export(model, (IMAGES.clone(),), dynamic_shapes=shapes, strict=False), path)
    parity = verify_program(path, model, IMAGES, batch_sizes=[2], sizes=SIZES)
    assert [comparison.size for comparison in parity.comparisons[::2]] == [None, *SIZES]
