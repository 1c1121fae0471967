"""The exporter is quiet, and nobody else is."""

import logging
import os
import subprocess
import sys
import threading
import warnings

import pytest

from vfconvert.silence import silenced, stdout_closed


def _make_noise(text: str) -> None:
    sys.stdout.write(text)
    sys.stderr.writelines([text])
    warnings.warn(text, stacklevel=1)
    logging.getLogger("torch.onnx").error(text)


def test_silenced_drops_prints_warnings_and_records(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with silenced():
        _make_noise("within")
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == []


def test_silenced_restores_everything_even_after_an_exception(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    streams, filters, disabled = (sys.stdout, sys.stderr), list(warnings.filters), logging.root.manager.disable
    with pytest.raises(ValueError, match="passes through"), silenced():
        raise ValueError("passes through")
    assert (sys.stdout, sys.stderr) == streams
    assert list(warnings.filters) == filters
    assert logging.root.manager.disable == disabled
    with pytest.warns(UserWarning, match="after"):
        _make_noise("after")
    shown = capsys.readouterr()
    assert shown.out == "after"
    assert shown.err.startswith("after")  # the record may follow
    assert caplog.messages == ["after"]


def test_silenced_lets_other_threads_print(capsys: pytest.CaptureFixture[str]) -> None:
    with silenced():
        thread = threading.Thread(target=print, args=("progress",))
        thread.start()
        thread.join()
        sys.stdout.flush()
    assert capsys.readouterr().out == "progress\n"


def test_what_is_written_past_python_is_lost_within_alone(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(1, b"within")
        raise ValueError("passes through")

    sys.stdout.write("before ")
    with pytest.raises(ValueError, match="passes through"), silenced(), stdout_closed():
        fail()
    os.write(1, b"after")
    assert capfd.readouterr().out == "before after"


def test_a_process_without_standard_output_goes_on() -> None:
    code = "import os, sys; os.close(1)\nfrom vfconvert.silence import stdout_closed\n"
    code += "with stdout_closed(): pass\nsys.stderr.write('done'); sys.stderr.flush(); os._exit(0)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == "done"
