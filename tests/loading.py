"""Importing a file as a module of its own, for documents and examples that are tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_file(path: Path, name: str) -> ModuleType:
    """Import `path` under `name`, anew each time."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Models look up their annotations in the module by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
