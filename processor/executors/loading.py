"""Finding the user's app by name: `shop.jobs:app`, or `jobs.py:app` for a file. Workers, their children and the command
line all load it here, so that a name that works in one works in all.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeGuard

from processor.callables import refuse_awaitable
from processor.engine.registry import JobTypes
from processor.errors import DefinitionError
from processor.schedules import Schedule
from processor.signals import ProcessStopped
from processor.texts import place_of, traceback_of

_EXAMPLE = "for example shop.jobs:app, or jobs.py:app for a file"


class Application(Protocol):
    """What a worker needs of the user's app; `processor.App` is one."""

    namespace: str
    start_hooks: list[Callable[[], object]]

    @property
    def job_types(self) -> JobTypes: ...
    @property
    def queues(self) -> Mapping[str, Any]: ...
    @property
    def schedules(self) -> Mapping[str, Schedule]: ...


def load_application(path: str) -> Application:
    """Import `MODULE:APP`. MODULE is a module's name, looked for in the working directory too, or a path to a `.py`
    file. Without `:APP` the name is `app`, else the only app of the module.

    Raises:
        DefinitionError: it is not there; the message says what was tried. Errors of the module itself pass through.
    """
    name, _, attribute = path.rpartition(":") if ":" in path else (path, "", "")
    if not name:
        raise DefinitionError(f"{path!r} names no module", hint=f"write MODULE:APP, {_EXAMPLE}")
    try:
        module = _load_file(Path(name)) if name.endswith(".py") else _load_module(name)
    except ProcessStopped:
        raise
    except SystemExit as error:
        place = place_of(traceback_of(error))
        raise DefinitionError(
            f"{name} ends the program while it is imported: sys.exit({error.code!r}) at {place}",
            hint="put what only a program does under: if __name__ == '__main__':",
        ) from None
    return _application_of(module, name, attribute)


def absolute(path: str) -> str:
    """The same `MODULE:APP` or `FILE.py:APP`, whatever the working directory is by then."""
    name, separator, attribute = path.rpartition(":") if ":" in path else (path, "", "")
    return f"{Path(name).resolve()}{separator}{attribute}" if name.endswith(".py") else path


def run_start_hooks(app: Application) -> None:
    """Call the app's start hooks, in their order.

    Raises:
        DefinitionError: one gave something that must be awaited, and nobody could.
    """
    for hook in app.start_hooks:
        name = getattr(hook, "__qualname__", "of the app")
        refuse_awaitable(hook(), f"the start hook {name}", error=DefinitionError, hint="make it a def")


def _load_module(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only "this module is not there" is ours to explain; one that it imports in vain is the user's own error.
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise DefinitionError(
            f"no module {error.name!r}: looked in {folder} and {len(sys.path) - 1} more folders of the Python path",
            hint=f"start in the folder that holds it, or install it; {_EXAMPLE}",
        ) from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise DefinitionError(f"no file {path.resolve()}", hint=f"give a module or a file, {_EXAMPLE}")
    path = path.resolve()
    if _imports_relatively(path):
        folder, name = _in_its_package(path)
    elif "." in path.stem:
        return _load_location(path, path.stem.replace(".", "_"))
    else:
        # Under its own name, as if it were imported from its folder: then what it defines can be found by name again.
        folder, name = path.parent, path.stem
        _refuse_taken_name(path, path.stem)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def _load_location(path: Path, name: str) -> ModuleType:
    """Load a file whose name no import statement could name."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    _refuse_taken_name(path, name)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path  # it ends in .py
    assert spec.loader is not None, path
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _refuse_taken_name(path: Path, name: str) -> None:
    """A file called `json.py` would not be found: or else everybody who imports json would find it.

    Raises:
        DefinitionError: its name is that of another module.
    """
    hint = f"rename the file, for example to {name}_jobs.py"
    if name in sys.stdlib_module_names:
        raise DefinitionError(f"{path.name} has the name of Python's own module {name!r}", hint=hint)
    loaded = sys.modules.get(name)
    place = getattr(loaded, "__file__", None)
    if place is not None and Path(place).resolve() != path:
        raise DefinitionError(f"{path.name} has the name of the module {name!r} in {place}", hint=hint)


def _imports_relatively(path: Path) -> bool:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return False  # the import says it better
    return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))


def _in_its_package(path: Path) -> tuple[Path, str]:
    """The folder from which a file of a package is imported, and its name there.

    Raises:
        DefinitionError: it is not in a package.
    """
    folder, names = path.parent, [path.stem]
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    if len(names) == 1 or not all(name.isidentifier() for name in names):
        raise DefinitionError(
            f"{path.name} has relative imports (from . import ...), and {path.parent} is no package",
            hint="put an __init__.py there, or import without the dot",
        )
    return folder, ".".join(names)


def _application_of(module: ModuleType, name: str, attribute: str) -> Application:
    found = {key: value for key, value in vars(module).items() if _is_application(value)}
    if attribute:
        value = getattr(module, attribute, None)
        if _is_application(value):
            return value
        what = (
            f"{attribute} of {name} is of type {type(value).__name__}, not an App" if hasattr(module, attribute) else ""
        )
        raise DefinitionError(what or f"{name} has no {attribute!r}", hint=_suggest(name, found))
    if "app" in found:
        return found["app"]
    if len({id(app) for app in found.values()}) == 1:
        return next(iter(found.values()))
    raise DefinitionError(f"{name} has {len(found) or 'no'} apps and none is called 'app'", hint=_suggest(name, found))


def _is_application(value: object) -> TypeGuard[Application]:
    return not isinstance(value, type) and all(
        hasattr(value, part) for part in ("namespace", "start_hooks", "job_types", "queues")
    )


def _suggest(name: str, found: Mapping[str, object]) -> str:
    if found:
        return "did you mean " + " or ".join(f"{name}:{key}" for key in found) + "?"
    return f'declare one there: app = App("shop"); then {name}:app'
