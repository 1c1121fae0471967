"""Every format opens in its runtime and computes there what the network computes; other files are refused unread."""

import io
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.benching_samples import QUICK, SHAPE, export_onnx, export_program, export_script, network, write_files
from vfconvert.benching import bench, open_model, runners
from vfconvert.benching.formats import sniff_format
from vfconvert.errors import (
    EmptyModelError,
    MissingPackageError,
    NotAModelError,
    TruncatedModelError,
    UnsupportedModelError,
    UntrustedModelError,
)
from vfconvert.silence import silenced


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> SimpleNamespace:
    return write_files(tmp_path_factory.mktemp("files"))


def test_every_runtime_reads_the_same_numbers(files):
    array = np.random.default_rng(3).standard_normal(SHAPE, dtype=np.float32)
    torch.manual_seed(5)
    model = network()
    exported = export_onnx(files.onnx.with_name("same.onnx"), model)
    script = export_script(files.onnx.with_name("same.ts"), model)
    with torch.no_grad():
        expected = model(torch.from_numpy(array)).numpy()
    (from_onnx,) = open_model(exported).prepare([array])()
    from_script = open_model(script).prepare([array])()
    np.testing.assert_allclose(from_onnx, expected, atol=1e-5)
    np.testing.assert_allclose(from_script.numpy(), expected, atol=1e-5)


def test_threads_reach_the_session(files, monkeypatch):
    made = []
    session = onnxruntime.InferenceSession

    def keep(*args, **kwargs):
        made.append(session(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", keep)
    assert open_model(files.onnx, threads=2).threads == 2
    options = made[0].get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert made[0].get_providers() == ["CPUExecutionProvider"]


def write_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return path


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("empty.onnx", b"", EmptyModelError, "the file is empty"),
        ("text.txt", b"hello", NotAModelError, "is in no format that is known here"),
        ("text.onnx", b"hello", NotAModelError, "is no ONNX file, or a damaged one"),
        ("cut.pt2", b"PK\x03\x04cut", TruncatedModelError, "a zip archive without its end"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, error, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=said):
        open_model(tmp_path / name)


def test_missing_files_folders_and_pickles_are_refused(files, tmp_path):
    with pytest.raises(NotAModelError, match="no such file"):
        open_model(tmp_path / "a.onnx")
    with pytest.raises(NotAModelError, match="is a folder"):
        open_model(tmp_path)
    with pytest.raises(NotAModelError, match=r"a pickle of torch\.save, which no runtime opens"):
        open_model(files.pickled)
    with pytest.raises(NotAModelError, match="a zip archive that holds no network"):
        open_model(write_zip(tmp_path / "photos.zip", "photo.png"))


@pytest.mark.parametrize("name", ["aotinductor/model/a.so", "constants/opaque_obj_0", "constants/custom_obj_0"])
def test_program_with_code_or_objects_is_refused(tmp_path, name):
    path = write_zip(tmp_path / "a.pt2", "a/archive_format", f"a/data/{name}")
    with pytest.raises(UntrustedModelError, match="expected tensors only"):
        sniff_format(path)


DONE = []


def harm(word: str) -> None:
    DONE.append(word)


class Harm:
    def __reduce__(self):
        return (harm, ("done",))


def test_pickle_inside_a_program_is_not_built(files, tmp_path):
    path, record = tmp_path / "a.pt2", io.BytesIO()
    torch.save((Harm(),), record)
    with zipfile.ZipFile(files.program) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, record.getvalue() if "sample_inputs" in name else source.read(name))
    with pytest.raises(UntrustedModelError, match="pickled objects beyond tensors"):
        open_model(path)
    assert DONE == []


def test_meta_a_built_pickle_is_seen():
    pickle.loads(pickle.dumps(Harm()))
    assert DONE == ["done"]
    DONE.clear()


def test_runtime_for_another_format_is_refused(files):
    with pytest.raises(UnsupportedModelError, match="format onnx, which torch does not run; choose onnxruntime or"):
        open_model(files.onnx, "torch")
    with pytest.raises(UnsupportedModelError, match="format program, which onnxruntime does not run; choose torch"):
        open_model(files.program, "onnxruntime")


def test_missing_runtime_names_the_extra(files, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(runners, "importlib", SimpleNamespace(import_module=missing))
    with pytest.raises(MissingPackageError, match=r"pip install vfconvert\[openvino\]"):
        open_model(files.onnx, "openvino")


def test_openvino_takes_turns_too(files):
    pytest.importorskip("openvino")
    report = bench([files.onnx], runtime="openvino", **QUICK)
    assert report.files[0].runtime == "openvino"
    assert report.input_shape == SHAPE


def test_inputs_of_other_kinds_are_refused(tmp_path):
    class Nothing(nn.Module):
        def forward(self):
            return torch.zeros(2)

    class Counted(nn.Module):
        def forward(self, images: Tensor, times: int) -> Tensor:
            return images * times

    empty = export_program(tmp_path / "empty.pt2", Nothing())
    with pytest.raises(UnsupportedModelError, match="has no input, expected one or more"):
        open_model(empty)
    with silenced():
        torch.jit.script(Counted()).save(tmp_path / "counted.pt")
    with pytest.raises(UnsupportedModelError, match="its input is int, expected floating-point"):
        open_model(tmp_path / "counted.pt")
    whole = tmp_path / "whole.onnx"
    with silenced():
        torch.onnx.export(nn.Embedding(3, 2), (torch.zeros(1, dtype=torch.int64),), whole, dynamo=False)
    with pytest.raises(UnsupportedModelError, match=r"its input is tensor\(int64\), expected floating-point"):
        open_model(whole)
