"""What every command does first, where it refuses."""

import pytest

from vfconvert.errors import DeviceError
from vfconvert.options import ConversionOptions
from vfconvert.preparation import Clock, prepare


@pytest.mark.parametrize(("name", "said"), [("abacus", "abacus"), ("meta", "use cpu, or a device that this torch can")])
def test_prepare_refuses_a_device_that_is_not_there(tmp_path, name, said):
    options = ConversionOptions(model=tmp_path / "m.pt", spatial=True, device=name)
    with pytest.raises(DeviceError, match=f"--device {name}: .*{said}"):
        prepare(options, Clock())
