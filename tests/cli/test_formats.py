"""Several formats and precisions from one run: every file there, reopened, and described as it is."""

import hashlib
import json
import math

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import vfconvert
from tests.cli.conftest import SIDE, network
from tests.references import assert_close_enough
from vfconvert.errors import ExportError, InputShapeError, NotAModelError

FORMATS = ("onnx", "torchscript", "pt2", "safetensors")
ARTEFACTS = ("original", "converted")


@pytest.fixture(scope="module")
def run(cli_invoke, images, tmp_path_factory):
    """A conversion to every format and precision: its folder, the report and what was printed."""
    folder = tmp_path_factory.mktemp("formats")
    torch.save(network(), folder / "model.pt")
    flags = [flag for name in FORMATS for flag in ("--format", name)]
    result = cli_invoke(
        *(folder / "model.pt", "--spatial", "--channel", "--no-reconstruct", "--data", images, *flags),
        *("--int8", "--precision", "fp16", "--costs", folder / "costs.json"),
        *("-o", folder / "small.v2", "--report", folder / "r.json"),
        exit_code=0,
    )
    return folder, json.loads((folder / "r.json").read_text()), result


@pytest.mark.parametrize(
    ("stated", "output", "written"),
    [
        ((), "small.safetensors", "small.safetensors"),
        ((), "small.pt2", "small.pt2"),
        ((), "small", "small"),
        (("--format", "onnx"), "small.safetensors", "small.onnx"),
        (("--format", "safetensors"), "small.bin", "small.bin"),
    ],
)
def test_output_names_the_format_where_nothing_else_does(cli_invoke, tmp_path, stated, output, written):
    torch.save(network(), tmp_path / "model.pt")
    result = cli_invoke(
        *(tmp_path / "model.pt", "--spatial", "--no-reconstruct", "--no-measure", *stated, "-o", tmp_path / output),
        exit_code=0,
    )
    assert {path.name for path in tmp_path.iterdir()} - {"small.json"} == {"model.pt", written}
    assert f"Written: {tmp_path / written}" in "".join(result.output.splitlines())


def test_every_file_is_there_and_described(run):
    folder, report, _ = run
    written = {f"small.v2{suffix}" for suffix in (".onnx", ".ts", ".pt2", ".safetensors", ".json")}
    written |= {"small.v2.fp16.onnx", "small.v2.int8.onnx"}
    assert {path.name for path in folder.iterdir()} == written | {"model.pt", "r.json", "costs.json"}
    assert [artefact["format"] for artefact in report["artefacts"]] == list(FORMATS)
    for artefact in report["artefacts"]:
        content = (folder / artefact["path"]).read_bytes()
        assert artefact["bytes"] == len(content)
        assert artefact["sha256"] == hashlib.sha256(content).hexdigest()
        assert artefact["parity"]["relative_error"] <= 1e-4
    names = [row["name"] for row in report["precisions"]]
    assert names == ["original", "original fp16", "original int8", "converted", "converted fp16", "converted int8"]
    assert report["precisions"][0]["value"] == 1.0


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_all_files_compute_the_same(run):
    folder, _, _ = run
    x = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(str(folder / "small.v2.onnx"), providers=["CPUExecutionProvider"])
    expected = torch.from_numpy(session.run(None, {"input": x.numpy()})[0])
    with torch.no_grad():
        found = {
            "torchscript": torch.jit.load(str(folder / "small.v2.ts"))(x),
            "pt2": torch.export.load(str(folder / "small.v2.pt2")).module()(x),
            "trainable": vfconvert.load(folder / "small.v2.safetensors", like=network())(x),
            "lowered": vfconvert.load(folder / "small.v2.safetensors", like=network(), lowered=True)(x),
        }
    for name, output in found.items():
        output = output[0] if isinstance(output, (tuple, list)) else output
        assert output.shape == expected.shape, name
        assert_close_enough(output, expected, tolerance=1e-5)


def test_latency_and_forms_are_reported(run):
    _, report, result = run
    latency = report["latency"]
    assert min(latency["before"], latency["after"]) > 0
    assert (latency["threads"], latency["batch"]) == (1, 1)
    forms = [row["form"] for row in report["layers"] if row["decision"] == "convert"]
    assert set(forms) <= {"segments", "full", "separate", "plain"}
    for words in ("Latency: ", "How the file computes the converted layers: ", "converted int8"):
        assert words in result.stdout
    table = json.loads((run[0] / "costs.json").read_text())
    assert table["threads"] == 1
    assert len(table["layers"]) == len(forms)


def test_precisions_need_the_onnx_file(cli_invoke, model_path):
    result = cli_invoke(model_path, "--spatial", "--int8", "--format", "pt2", exit_code=ExportError.exit_code)
    assert "int8: made from the ONNX file, which --format leaves out; add onnx" in result.stderr


def test_a_table_of_costs_is_refused_before_any_work(cli_invoke, model_path, tmp_path, monkeypatch):
    monkeypatch.setattr("vfconvert.preparation.load_model", lambda *_, **__: pytest.fail("loaded"))
    costs = tmp_path / "costs.json"
    for content, said in (
        ("junk", "no table of layer costs"),
        ('{"schema_version": 1, "threads": 2, "layers": {}}', "timings of 2 threads, expected 1"),
    ):
        costs.write_text(content)
        result = cli_invoke(model_path, "--spatial", "--costs", costs, exit_code=NotAModelError.exit_code)
        assert said in result.stderr


def test_without_measuring_nothing_is_timed(cli_invoke, model_path, images, tmp_path, monkeypatch):
    monkeypatch.setattr("vfconvert.lowering.choice.in_turns", lambda *_, **__: pytest.fail("timed"))
    monkeypatch.setattr("vfconvert.lowering.costs.in_turns", lambda *_, **__: pytest.fail("timed"))
    flags = ("--spatial", "--no-reconstruct", "--no-measure", "--data", images, "--report", tmp_path / "r.json")
    result = cli_invoke(model_path, *flags, exit_code=0)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["latency"] is None
    assert report["after"]["macs_executed"] < report["before"]["macs_executed"]
    assert "in segments" in result.stdout


FIXED = """
import torch
from torch import nn
from torch import nn


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        y = torch.relu(self.body(torch.relu(self.stem(x)))).mean((2, 3))
        return self.head(y.view(BATCH, 16))
"""


def write_fixed(folder, batch):
    """The weights of a network whose source, in fixed.py, gives the batch size as this expression."""
    source = FIXED.replace("BATCH", batch)
    (folder / "fixed.py").write_text(source)
    namespace: dict = {}
    exec(source, namespace)
    torch.save(namespace["Fixed"]().state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_any_height_and_width(cli_invoke, model_path, images, tmp_path):
    flags = [flag for name in FORMATS for flag in ("--format", name)]
    stem = tmp_path / "any"
    cli_invoke(
        *(model_path, "--spatial", "--no-reconstruct", "--no-measure", "--data", images, "--dynamic-size", *flags),
        *("-o", stem, "--report", tmp_path / "r.json"),
        exit_code=0,
    )
    x = torch.randn(2, 3, 20, 14, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = vfconvert.load(tmp_path / "any.safetensors", like=network())(x)
        program = torch.export.load(str(tmp_path / "any.pt2")).module()(x)
        script = torch.jit.load(str(tmp_path / "any.ts"))(x)
    session = onnxruntime.InferenceSession(str(tmp_path / "any.onnx"), providers=["CPUExecutionProvider"])
    for output in (program, script, torch.from_numpy(session.run(None, {"input": x.numpy()})[0])):
        assert_close_enough(output, expected, tolerance=1e-5)


def test_a_network_of_one_batch_size(cli_invoke, tmp_path):
    weights = write_fixed(tmp_path, "int(x.shape[0])")
    flags = [flag for name in FORMATS for flag in ("--format", name)]
    cli_invoke(
        *(weights, "--arch", f"{tmp_path / 'fixed.py'}:Fixed", "--spatial", "--no-reconstruct"),
        *("--input-shape", "3,12,12", *flags, "-o", tmp_path / "small", "--report", tmp_path / "r.json"),
        exit_code=0,
    )
    for artefact in json.loads((tmp_path / "r.json").read_text())["artefacts"]:
        parity = artefact["parity"]
        any_batch = artefact["format"] == "safetensors"  # the network itself takes any, its traces do not
        expected = (True, [1, 2, 5]) if any_batch else (False, [1])
        assert (parity["dynamic_batch"], tuple(parity["batch_sizes"])) == (expected[0], tuple(expected[1]))


def test_a_network_that_takes_one_image_is_refused(cli_invoke, tmp_path):
    weights = write_fixed(tmp_path, "1")
    arguments = (weights, "--arch", f"{tmp_path / 'fixed.py'}:Fixed", "--spatial", "--input-shape", "3,12,12")
    result = cli_invoke(*arguments, exit_code=InputShapeError.exit_code)
    assert "the network takes one image but not a batch of 2, as the fit needs it (shape '[1, 16]'" in result.stderr


def test_ordinary_convolutions_in_eight_bits_are_stored_as_banks(cli_invoke, images, tmp_path):
    """Also that of a Linear after a flatten, one with a negative scale by its norm, and one without any output."""
    torch.manual_seed(1)
    made = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(576, 64), nn.Linear(64, 3)),
    )
    made[2].weight.data[::2] = -1
    made[2].weight.data[3] = 0
    torch.save(made, tmp_path / "model.pt")
    cli_invoke(
        *(tmp_path / "model.pt", "--spatial", "--channel", "--linear", "--forms", "plain", "--int8"),
        *("--no-reconstruct", "--data", images, "-o", tmp_path / "small.onnx", "--report", tmp_path / "r.json"),
        exit_code=0,
    )
    report = json.loads((tmp_path / "r.json").read_text())
    original, converted = (next(r for r in report["precisions"] if r["name"] == f"{n} int8") for n in ARTEFACTS)
    assert converted["path"].endswith("small.int8.onnx")
    assert converted["bytes"] < 0.5 * original["bytes"]
    weights = [tensor for tensor in onnx.load(tmp_path / "small.int8.onnx").graph.initializer if len(tensor.dims) == 4]
    banks = sum(math.prod(tensor.dims) for tensor in weights if tensor.data_type == onnx.TensorProto.INT8)
    assert banks < 27 * 32 + 0.35 * 9 * 64 * (32 + 64 + 64)
    float32 = next(row for row in report["precisions"] if row["name"] == "converted")
    assert converted["relative_error"] < float32["relative_error"] + 0.05
