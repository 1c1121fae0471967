"""Networks of several inputs through the whole product: every stage, every format, from Python and the command line."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision.models.optical_flow import raft_small

import vfconvert
from tests.cli.conftest import invoke
from tests.detectors import Places
from tests.several_nets import SIDE, Flow, Matting
from vfconvert.benching import bench
from vfconvert.errors import ExportError, InputShapeError
from vfconvert.nn import VersatileConv2d
from vfconvert.options import ConversionOptions
from vfconvert.pipeline import convert
from vfconvert.silence import silenced

SHAPES = ((3, SIDE, SIDE), (1, SIDE, SIDE))
PAIRS = TensorDataset(*(torch.randn(24, *shape, generator=torch.Generator().manual_seed(3)) for shape in SHAPES))
NETS = Path(__file__).parent / "several_nets.py"
QUICK = {"reconstruct": False, "measure": False}


def given(count: int = 3) -> list[torch.Tensor]:
    return [torch.randn(count, *shape, generator=torch.Generator().manual_seed(4)) for shape in SHAPES]


@pytest.fixture(scope="module")
def conversion() -> vfconvert.Conversion:
    return vfconvert.convert(Matting(), spatial=True, channel=True, data=PAIRS, **QUICK)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Twelve frames, more than a network needs in size."""
    (tmp_path / "frames").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, SIDE, SIDE, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "frames" / f"{index:02}.png")
    return tmp_path / "frames"


@pytest.fixture
def flow(tmp_path: Path) -> tuple[object, ...]:
    """The command line of a network of two frames."""
    torch.save(Flow().state_dict(), tmp_path / "flow.pt")
    shape = ("--input-shape", f"3,{SIDE},{SIDE}")
    return (tmp_path / "flow.pt", "--arch", f"{NETS}:Flow", *shape, *shape)


def test_both_forms_take_the_networks_own_inputs(conversion):
    assert isinstance(conversion.model.of_mask[2], VersatileConv2d)
    wanted = conversion.model(*given())
    assert wanted.shape == (3, 1, SIDE, SIDE)
    assert torch.allclose(conversion.inference(*given()), wanted, atol=1e-5)
    assert conversion.inference is not conversion.model


def test_the_model_can_be_trained_on(conversion):
    network = copy.deepcopy(conversion.model)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network.train()(*given()).square().mean().backward()
    optimizer.step()
    before = conversion.model.state_dict()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {"of_mask.2.weight", "both.weight", "head.weight"} <= changed


def test_layers_have_the_networks_own_names_and_the_report_every_shape(conversion, tmp_path):
    names = [name for name, module in Matting().named_modules() if isinstance(module, torch.nn.Conv2d)]
    assert [row.name for row in conversion.report.layers] == names
    assert conversion.report.input_shape == (4, SIDE, SIDE)
    assert conversion.report.input_shapes == SHAPES
    conversion.save_report(tmp_path / "r.html")
    assert "3 x 16 x 16 and 1 x 16 x 16" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("name", ["onnx", "torchscript", "pt2", "safetensors"])
def test_every_format_is_written_and_compared(conversion, tmp_path, name):
    size = name != "safetensors"
    written = conversion.export(tmp_path / "small", format=name, dynamic_size=size)
    assert written.parity.relative_error < 1e-5
    assert written.parity.batch_sizes == (1, 2, 5)


def test_the_onnx_file_has_inputs_of_the_names_of_the_forward(conversion, tmp_path):
    conversion.export(tmp_path / "small.onnx", dynamic_size=True)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    inputs = {one.name: one.shape for one in session.get_inputs()}
    assert inputs == {"image": ["batch", 3, "height", "width"], "mask": ["batch", 1, "height", "width"]}
    (got,) = session.run(None, dict(zip(inputs, (image.numpy() for image in given()), strict=True)))
    assert np.allclose(got, conversion.model(*given()).detach().numpy(), atol=1e-5)


def test_the_recipe_gives_both_forms_back(conversion, tmp_path):
    conversion.export(tmp_path / "small.safetensors")
    again = vfconvert.load(tmp_path / "small.safetensors", like=Matting())
    assert torch.equal(again(*given()), conversion.model(*given()))
    lowered = vfconvert.load(tmp_path / "small.safetensors", like=Matting(), lowered=True)
    assert torch.allclose(lowered(*given()), again(*given()), atol=1e-5)
    other = vfconvert.load(tmp_path / "small.safetensors", like=Matting(), lowered=True, example=given())
    assert torch.allclose(other(*given()), again(*given()), atol=1e-5)
    with pytest.raises(InputShapeError, match=r"the network takes 2 inputs, example= has 1"):
        vfconvert.load(tmp_path / "small.safetensors", like=Matting(), lowered=True, example=torch.cat(given(), 1))


def test_files_of_several_inputs_are_timed(conversion, tmp_path):
    files = [tmp_path / "a.onnx", tmp_path / "a.pt2", tmp_path / "a.ts"]
    for path, name in zip(files, ("onnx", "pt2", "torchscript"), strict=True):
        conversion.export(path, format=name)
    report = bench(files, rounds=1, warm_up=1, memory=False)
    assert report.input_shapes == tuple((1, *shape) for shape in SHAPES)
    assert report.input_shape == (1, *SHAPES[0])
    with pytest.raises(InputShapeError, match=r"a.onnx: takes 2 input\(s\), got 1 --input-shape; give 2"):
        bench(files, input_shape=SHAPES[0], rounds=1, memory=False)
    with pytest.raises(InputShapeError, match=r"the file does not tell its input's shape; add .* for each input"):
        bench(files[2:], rounds=1, memory=False)
    assert bench(files[2:], input_shape=SHAPES, rounds=1, memory=False).input_shapes == report.input_shapes
    result = invoke("bench", files[0], "--rounds", 1, "--seconds", 1, exit_code=0)
    assert "input 1 x 3 x 16 x 16 and 1 x 1 x 16 x 16 of seed 0" in " ".join(result.stdout.split())


def test_a_stacked_tensor_is_the_same_as_pairs(conversion):
    whole = torch.cat(list(PAIRS.tensors), 1)
    found = vfconvert.convert(Matting(), spatial=True, channel=True, data=whole, input_shape=SHAPES, **QUICK)
    assert torch.equal(found.model(*given()), conversion.model(*given()))


def test_without_images_the_latency_is_measured_and_precisions_are_written(tmp_path):
    torch.save(Matting().state_dict(), tmp_path / "m.pt")
    report = convert(
        ConversionOptions(
            model=tmp_path / "m.pt",
            arch=f"{NETS}:Matting",
            spatial=True,
            input_shape=SHAPES,
            calibration_images=16,
            output=tmp_path / "m.onnx",
            precision="fp16",
            int8=True,
            reconstruct=False,
        )
    )
    assert report is not None
    assert report.latency is not None
    assert report.latency.after > 0
    named = {row.name for row in report.precisions if row.path is not None}
    assert named == {"converted fp16", "converted int8"}
    inputs = onnxruntime.InferenceSession(tmp_path / "m.int8.onnx").get_inputs()
    assert [one.name for one in inputs] == ["image", "mask"]


def test_frames_train_a_network_that_cannot_be_traced(flow, frames, tmp_path):
    options = ("--spatial", "--include-first", "--data", frames, "--no-measure", "--epochs", 1, "--batch", 4)
    result = invoke(*flow, *options, "-o", tmp_path / "small.onnx", "--report", tmp_path / "r.json", exit_code=0)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["input_shapes"] == [[3, SIDE, SIDE], [3, SIDE, SIDE]]
    assert report["images"]["source"].endswith("frames, 2 in a row")
    assert report["images"]["preprocessing"].startswith("each of 2 inputs: RGB")
    assert report["training"]["task"] == "distil"
    assert any(row["decision"] == "convert" for row in report["layers"])
    assert {"features.0", "features.2", "head"} == {row["name"] for row in report["layers"]}
    assert "small.onnx" in result.stdout
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    assert [one.name for one in session.get_inputs()] == ["first", "second"]
    assert [one.name for one in session.get_outputs()] == ["output_0", "output_1"]


def test_a_plan_is_searched_for(flow, frames, tmp_path):
    plan = ("--target", "params=70%", "--save-plan", tmp_path / "p.json", "--no-reconstruct", "--no-measure")
    invoke(*flow, *plan, "--data", frames, "-o", tmp_path / "small.safetensors", exit_code=0)
    layers = json.loads((tmp_path / "p.json").read_text())["layers"]
    assert {entry["layer"] for entry in layers} == {"features.0", "features.2", "head"}
    again = vfconvert.load(tmp_path / "small.safetensors", like=Flow())
    frame = torch.rand(1, 3, SIDE, SIDE)
    assert [tuple(found.shape) for found in again(frame, frame)] == [(1, 2, SIDE, SIDE)] * 2
    inspected = invoke("inspect", *flow, "--data", frames, "-v", exit_code=0)
    assert "input 3 x 16 x 16 and 3 x 16 x 16" in re.sub(r"\s+", " ", inspected.stdout)


def test_one_shape_for_two_inputs_says_what_to_do(flow):
    result = invoke(*flow[:-2], "--spatial", exit_code=InputShapeError.exit_code)
    assert "Flow takes 2 inputs (first, second), got 1 --input-shape; give --input-shape once for each" in result.stderr


def test_detections_of_several_inputs_are_no_onnx_file(tmp_path):
    class Both(Places):
        def forward(self, image: torch.Tensor, mask: torch.Tensor) -> object:
            return super().forward(image * mask)

    shapes = ((3, 32, 32), (1, 32, 32))
    found = vfconvert.convert(Both(), spatial=True, input_shape=shapes, calibration_images=16, **QUICK)
    with pytest.raises(ExportError, match=r"vary in number .*, and files of such take one input; write .* safetensors"):
        found.export(tmp_path / "d.onnx")
    assert found.export(tmp_path / "d.safetensors").bytes > 0


def test_an_archive_of_torch_export_and_a_network_saved_whole_are_read(tmp_path, monkeypatch):
    with silenced():
        program = torch.export.export(Matting().eval(), tuple(given()))
        torch.export.save(program, tmp_path / "m.pt2")
    torch.save(Matting(), tmp_path / "m.pt")
    shapes = [word for shape in SHAPES for word in ("--input-shape", ",".join(map(str, shape)))]
    quick = ("--spatial", "--no-reconstruct", "--no-measure", "--calibration-images", 16, *shapes)
    for source, more in (("m.pt2", ()), ("m.pt", ("--trust-pickle",))):
        small = tmp_path / f"{source}.onnx"
        invoke(tmp_path / source, *quick, *more, "-o", small, "--report", tmp_path / "r.json", exit_code=0)
        report = json.loads((tmp_path / "r.json").read_text())
        assert report["parity"]["relative_error"] < 1e-5
        assert sum(row["decision"] == "convert" for row in report["layers"]) > 2
        inputs = onnxruntime.InferenceSession(small).get_inputs()
        assert [one.name for one in inputs] == ["image", "mask"]


def test_a_batch_converts_networks_of_several_inputs(flow, tmp_path):
    options = ("--spatial", "--no-reconstruct", "--no-measure", "--calibration-images", 16)
    invoke("batch", flow[0], "-o", tmp_path / "out", "--", *flow[1:], *options, exit_code=0)
    report = json.loads((tmp_path / "out" / "flow.report.json").read_text())
    assert report["input_shapes"] == [[3, SIDE, SIDE], [3, SIDE, SIDE]]


def test_optical_flow_of_torchvision_is_planned(tmp_path):
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft.pt")
    shape = ("--input-shape", "3,128,128")
    options = ("--arch", "torchvision:raft_small", *shape, *shape, "--spatial", "--channel", "--dry-run", "--json")
    report = json.loads(invoke(tmp_path / "raft.pt", *options, exit_code=0).stdout)
    decided = {row["name"]: row["decision"] for row in report["layers"]}
    assert decided["feature_encoder.layer1.0.convnormrelu2.0"] == "convert"
    assert report["input_shapes"] == [[3, 128, 128], [3, 128, 128]]
