"""Names that nobody gave are not written through links, which whoever gave the model may have laid beside it."""

from dataclasses import replace
from pathlib import Path

import pytest

from vfconvert.errors import UnwritableOutputError
from vfconvert.options import ConversionOptions
from vfconvert.outputs import check_outputs
from vfconvert.targets import Target
from vfconvert.training_options import TrainingOptions
from vfconvert.tuning_start import own_folder


@pytest.fixture
def options(tmp_path: Path) -> ConversionOptions:
    (tmp_path / "m.pt").write_bytes(b"model")
    (tmp_path / "precious").write_text("precious")
    return ConversionOptions(model=tmp_path / "m.pt", spatial=True)


def linked(path: Path) -> Path:
    path.symlink_to(path.parent / "precious")
    return path


def test_a_link_in_the_place_of_the_file_has_to_be_named(options: ConversionOptions, tmp_path: Path) -> None:
    path = linked(tmp_path / "m.onnx")
    with pytest.raises(UnwritableOutputError, match=r"it is a symbolic link to .*precious; name it by --output"):
        check_outputs(options)
    check_outputs(replace(options, output=path))


def test_a_link_in_the_place_of_the_damage_has_to_be_named(options: ConversionOptions, tmp_path: Path) -> None:
    path = tmp_path / "m.pt.damage.json"
    path.symlink_to(tmp_path / "nothing yet")
    searching = replace(options, targets=(Target(cost="params", share=0.5),))
    with pytest.raises(UnwritableOutputError, match=r"symbolic link to .*; name it by --damage-cache"):
        check_outputs(searching)
    check_outputs(replace(searching, damage_cache=path))
    check_outputs(options)


@pytest.mark.parametrize("name", [None, "checkpoint.safetensors", "log.jsonl", "plan.json", "fit.safetensors"])
def test_links_in_the_place_of_checkpoints_have_to_be_named(
    options: ConversionOptions, tmp_path: Path, name: str | None
) -> None:
    folder = tmp_path / "m.training"
    (tmp_path / "elsewhere").mkdir()
    if name is None:
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        (folder / name).symlink_to(tmp_path / "precious")
    with pytest.raises(UnwritableOutputError, match=r"symbolic link to .*; name it by --checkpoints"):
        own_folder(options).__enter__()
    named = replace(options, training=TrainingOptions(epochs=1, checkpoints=folder))
    with own_folder(named):
        assert (tmp_path / "precious").read_text() == "precious"
