"""Python files that a user names: imported under a name of their own, with the modules beside them at hand."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


def import_file(source: str, purpose: str) -> ModuleType:
    """The module of a file, new on every call. Its entry in `sys.modules` stays: tracing finds classes through it.

    `purpose` is part of the name that it gets, under which it cannot shadow another module. Raises `FileNotFoundError`
    where there is no such file, `ImportError` where it is not Python's, and whatever the file raises.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    unique = f"vfconvert_{purpose}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {source}")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(unique)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(unique, None)
        if before is not None:
            sys.modules[unique] = before
        raise
    return module


@contextlib.contextmanager
def modules_beside(source: str) -> Iterator[None]:
    """While code of a file runs, modules in its folder can be imported, as when Python runs the file itself.

    `source` that is no `.py` file changes nothing.
    """
    if not source.endswith(".py"):
        yield
        return
    before = list(sys.path)
    sys.path.insert(0, str(Path(source).expanduser().resolve().parent))
    try:
        yield
    finally:
        sys.path[:] = before
