import pytest

from vfconvert.gates import Saving, read_bytes, read_saving


@pytest.mark.parametrize(
    ("text", "saving"),
    [
        ("params=40%", Saving(cost="params", share=0.4)),
        (" MACS = 12.5% ", Saving(cost="macs", share=0.125)),
        ("bytes=5%", Saving(cost="size", share=0.05)),
        ("latency=20%", Saving(cost="latency", share=0.2)),
    ],
)
def test_saving_is_read(text, saving):
    assert read_saving(text) == saving
    assert read_saving(str(saving)) == saving


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("weights=40%", "expected one of params, macs, size, latency and the share to save, like params=40%"),
        ("params", "expected one of params, macs"),
        ("params=40", "expected a share of the original in percent, like params=40%"),
        ("size=5MB", "expected a share of the original in percent, like size=40%"),
        ("params=100%", "expected less than 100%"),
        ("params=0%", "expected a limit above 0"),
        ("macs=-5%", "expected one of params, macs, size, latency and a limit"),
    ],
)
def test_saving_that_is_none_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        read_saving(text)


@pytest.mark.parametrize(("text", "size"), [("5MB", 5_000_000), ("800KiB", 819_200), ("1.5 kb", 1500), ("7b", 7)])
def test_bytes_are_read(text, size):
    assert read_bytes(text) == size


@pytest.mark.parametrize(("text", "said"), [("5", "a unit of size: B, KB"), ("50%", "say --fail-under-saving size=")])
def test_bytes_without_a_unit_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        read_bytes(text)
