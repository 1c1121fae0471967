"""Pages that open from disk: everything is in the file, nothing is fetched, every text is shown and never run.

A Content-Security-Policy allows the page's own script by its hash, and pictures that are in the page; templates escape.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).parent / "page"


def rendered(template: str, **parts: Any) -> str:
    """A template of the folder `page`, with its style and script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(_PAGE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    script = (_PAGE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        css=Markup((_PAGE / "report.css").read_text(encoding="utf-8").strip()),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        **parts,
    )
