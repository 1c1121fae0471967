"""Only pixels are decoded: no file starts another program, whatever it is called."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.test_batches import damage, stream
from tests.data.test_batches import examples as examples
from vfconvert.data.decoding import FORMATS, decode_image
from vfconvert.data.folder import IMAGE_SUFFIXES
from vfconvert.errors import UnreadableImageError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n(evil) print\nshowpage\n%%EOF\n"
OURS = "from vfconvert.data.decoding import decode_image as read; read(Path(sys.argv[1]), 'the image')"
PILLOWS = "from PIL import Image; Image.open(sys.argv[1]).load()"


@pytest.mark.parametrize(("code", "run"), [(OURS, False), (PILLOWS, True)], ids=["ours", "Pillow's"])
def test_postscript_that_is_called_png_runs_no_program(tmp_path: Path, code: str, run: bool) -> None:
    (tmp_path / "a.png").write_bytes(EPS)
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho run >> {tmp_path}/ran\n")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-c", f"import sys; from pathlib import Path; {code}", str(tmp_path / "a.png")]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (tmp_path / "ran").exists() == run
    assert ("UnreadableImageError: cannot decode the image the image: cannot identify" in done.stderr) != run


def test_postscript_is_counted_as_unreadable(examples) -> None:
    (name,) = damage(examples, 1)
    (Path(examples.root) / name).write_bytes(EPS)
    evaluation = stream(examples, train=False, shuffle=False, most_unreadable=0.1)
    assert len([index for batch in evaluation.epoch(0) for index in batch.indices]) == 20
    assert list(evaluation.unreadable) == [name]


def test_every_format_of_a_suffix_that_is_looked_for_is_decoded(tmp_path: Path) -> None:
    Image.init()
    assert set(FORMATS) <= Image.OPEN.keys()
    found = set()
    for suffix in sorted(IMAGE_SUFFIXES | {".jp2", ".mpo", ".tga"}):
        image = Image.fromarray(np.full((4, 6), 255, dtype=np.uint8)).convert("1" if suffix == ".pbm" else "L")
        image.save(tmp_path / f"a{suffix}", Image.registered_extensions()[suffix])
        decoded = decode_image(tmp_path / f"a{suffix}", "a")
        assert decoded.convert("L").getpixel((5, 3)) == 255
        found.add(decoded.format)
    assert found <= {*FORMATS, "MPO"}
    assert found >= set(FORMATS)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PDF"])
def test_other_formats_are_unreadable(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", kind)
    with pytest.raises(UnreadableImageError, match=r"cannot decode the image a: cannot identify .*; replace or remove"):
        decode_image(tmp_path / "a.png", "a")
