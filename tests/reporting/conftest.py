"""Golden files: text that a test must reproduce to the letter; `pytest tests/reporting --overwrite` renews them."""

from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--overwrite", action="store_true", help="write the golden files anew from what tests produce")


def compare(path: Path, text: str, *, overwrite: bool) -> None:
    """Fail unless the file holds exactly this text; with `overwrite` write it and skip."""
    if overwrite:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        pytest.skip(f"wrote {path.name}")
    assert text == path.read_text(encoding="utf-8")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    overwrite = bool(request.config.getoption("--overwrite", default=False))
    return lambda name, text: compare(GOLDEN / name, text, overwrite=overwrite)
