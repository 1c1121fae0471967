"""Sphinx's settings. The site is built by `sphinx-build docs docs/_build`."""

import sys
from pathlib import Path

# The checkout is what is documented, installed or not.
sys.path.insert(0, str(Path(__file__).parent.parent))

from vfconvert.version import __version__

project = "vfconvert"
release = __version__
html_show_copyright = False
html_show_sphinx = False

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "docs.extensions.commands",
    "docs.extensions.drawings",
    "docs.extensions.fields",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
smartquotes = False  # they make dashes of the two hyphens of an option
default_role = "code"  # single backticks in docstrings, as Markdown has them
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# Names of other packages are not looked up; those of this one have to lead somewhere.
nitpick_ignore_regex = [(r"py:.*", r"(?!vfconvert\.).*")]

html_theme = "furo"
html_title = f"vfconvert {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
