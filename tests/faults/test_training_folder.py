"""The folder of a training belongs to one run at a time, and is not left behind empty."""

from pathlib import Path

import pytest

from vfconvert.errors import TrainingError, UnwritableOutputError
from vfconvert.options import ConversionOptions
from vfconvert.temporary import claimed
from vfconvert.training_options import TrainingOptions
from vfconvert.tuning_start import done, own_folder


def options(folder: Path) -> ConversionOptions:
    return ConversionOptions(
        model=folder / "m.pt", spatial=True, training=TrainingOptions(epochs=1, checkpoints=folder / "kept")
    )


def test_folder_goes_again_where_nothing_was_written(tmp_path):
    with own_folder(options(tmp_path)):
        assert (tmp_path / "kept").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_folder_stays_with_what_was_written(tmp_path):
    with own_folder(options(tmp_path)):
        done(options(tmp_path))
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["exported"]


def test_another_run_is_refused_and_leaves_all(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "log.jsonl").write_text("")
    with (
        claimed(tmp_path / "kept"),
        pytest.raises(TrainingError, match="another process trains with this folder now; wait for it"),
        own_folder(options(tmp_path)),
    ):
        pass
    assert (tmp_path / "kept" / "log.jsonl").exists()
    with own_folder(options(tmp_path)):
        pass


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(UnwritableOutputError, match="kept"), own_folder(options(tmp_path)):
        pass


def test_a_note_that_cannot_be_written_is_no_error(tmp_path):
    done(options(tmp_path))
    assert list(tmp_path.iterdir()) == []
