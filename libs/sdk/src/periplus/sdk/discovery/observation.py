"""The hooks of a step's process, and what they saw as a report."""

from __future__ import annotations

import builtins
import importlib
import os
import sys
from types import CodeType
from typing import TYPE_CHECKING, Any

from periplus.sdk.discovery import frames
from periplus.sdk.discovery.executed import Executed
from periplus.sdk.discovery.files import Files, text
from periplus.sdk.discovery.names import EVERYTHING, LISTING, SPELLING, Names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_NAMED = 5
"""Files and variables that a report names: one is enough not to cache."""

_COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>"})
_IS_FUNCTION = 1  # of a code object's flags: not the body of a class or a module
_SOURCE = (".py", ".pyc")
_STARTS_PROCESS = (
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen",
)  # fmt: skip
# Imported when a process is started, without an event.
_STARTERS = (
    "multiprocessing.popen_fork", "multiprocessing.popen_spawn_posix", "multiprocessing.popen_forkserver",
)  # fmt: skip
# Of the pod, and of the machine that runs steps as processes.
_VOLATILE = frozenset({"HOSTNAME", "HOME", "LANG", "PATH"})
_VOLATILE_PREFIXES = ("ARGO_", "KUBERNETES_")
_VOLATILE_PARTS = ("_SERVICE_HOST", "_SERVICE_PORT", "_PORT_")


class Observation:
    """Observes one process; it can not be undone. Hooks must be quick, and must not raise: that would end what they observe."""

    def __init__(self, entry: str, environment: Mapping[str, str], code: str | None) -> None:
        self._entry = entry
        self._code = os.path.join(os.path.abspath(code), "") if code else "\0"  # noqa: PTH100, PTH118
        self._files = Files(environment, self._code)
        self._modules: list[CodeType] = []
        self._classes: set[tuple[str, str]] = set()
        self._looked_up: set[str] = set()
        self._variables: set[str] = set()
        self._starts_processes = False
        self._executed = Executed()
        # Of the functions that were found when the step's module was imported, in their order.
        self._early: list[int] = []
        self._found: list[CodeType] = []
        self._walked = 0

    def begin(self) -> None:
        """Set the hooks, but those for what runs after the import."""
        handlers: dict[str, Callable[..., None]] = {
            "exec": self._on_exec,
            "open": self._on_open,
            "os.listdir": self._on_list,
            "os.scandir": self._on_list,
            "pickle.find_class": self._on_find_class,
            "sqlite3.connect": lambda path: self._on_open(path, "r", 0),
            **dict.fromkeys(_STARTS_PROCESS, self._on_process),
        }

        def hook(event: str, args: tuple[Any, ...]) -> None:
            handler = handlers.get(event)
            if handler is not None:
                handler(*args)

        import_module = importlib.import_module

        def observed_import(name: str, package: str | None = None) -> Any:
            module = import_module(name, package)
            self._looked_up.add(module.__name__)
            return module

        importlib.import_module = observed_import
        environ: Any = os.environ
        environ.__class__ = _environment_class(type(environ), self._on_variable)
        sys.addaudithook(hook)

    def imported(self) -> None:
        """The step's module is imported: what runs from now on runs in the step's function."""
        self._looked_up.discard(self._entry.partition(":")[0])
        self._early = self._executed.counts(self._functions())
        self._executed.begin_again()
        original: Any = builtins.__import__

        def observed_import(
            name: str,
            globals: Any = None,  # noqa: A002 - the name of the builtin
            locals: Any = None,  # noqa: A002
            fromlist: Any = (),
            level: int = 0,
        ) -> Any:
            # An import statement passes the globals of its module; the unpickler is observed by its own event.
            if globals is None and frames.caller().f_globals.get("__name__") != "pickle":
                self._looked_up.add(name)
            return original(name, globals, locals, fromlist, level)

        builtins.__import__ = observed_import

    def report(self) -> dict[str, Any]:
        """What was used beyond the key; empty if nothing was."""
        names = Names(self._code, self._entry)
        used, is_beyond = self._executed_beyond(names)
        referred = {*self._unpickled(names), *self._imported_by_name(names)}
        loaded = self._loaded_files()
        if is_beyond or referred or not all(map(names.has_file, loaded)):
            # What it is made of may be any value that an import made.
            used |= {
                f"{file}:" if file.endswith(".py") else file for file in loaded if not names.is_whole(file)
            }
            if not names.readers.isdisjoint(loaded):
                used |= {file + SPELLING for file in loaded if file.endswith(".py")}
        code = names.with_digests(used | referred | set(self._read_in_code(names)))
        files = [*self._files.undeclared(), *self._read_source()][:MAX_NAMED]
        found = {"code": code, "files": files, "variables": sorted(self._variables)[:MAX_NAMED]}
        return {name: value for name, value in found.items() if value}

    # Events.

    def _on_exec(self, code: Any) -> None:
        if isinstance(code, CodeType) and self._file(code.co_filename):
            self._modules.append(code)
            self._executed.watch(self._functions)

    def _on_find_class(self, module: Any, name: Any) -> None:
        self._classes.add((str(module), str(name)))

    def _on_process(self, *_: Any) -> None:
        self._starts_processes = True

    def _on_open(self, path: Any, mode: Any, flags: Any) -> None:
        if self._files.is_left_out(path):
            return
        name = text(path)
        is_source = name.startswith(self._code) and name.endswith(_SOURCE)
        if name and not (is_source and (frames.is_importing() or frames.shows_source())):
            self._files.open_file(name, mode, flags)

    def _on_list(self, path: Any) -> None:
        if not frames.is_importing():
            self._files.list_folder(text("." if path is None else path))

    def _on_variable(self, name: str) -> None:
        if frames.reader_of_environment().f_code.co_filename.startswith(self._code):
            self._variables.add(name)

    # What they saw, in names of the code index.

    def _executed_beyond(self, names: Names) -> tuple[set[str], bool]:
        """The definitions beyond the closure that were executed, and whether one was executed after the import."""
        found: set[str] = set()
        is_beyond = False
        functions = self._functions()
        for position, (code, count) in enumerate(
            zip(functions, self._executed.counts(functions), strict=True)
        ):
            if not count:
                continue
            early = self._early[position] if position < len(self._early) else 0
            file = self._file(code.co_filename)
            name, is_in_closure = names.at(file, code.co_firstlineno)
            is_late = count != early or self._executed.is_full(early)
            if is_in_closure or (not name and (not is_late or code.co_name in _COMPREHENSIONS)):
                continue
            found.add(f"{file}:{name}")
            is_beyond |= is_late
        return found, is_beyond

    def _unpickled(self, names: Names) -> Iterator[str]:
        for module, path in self._classes:
            file, name = self._file_of(module), path.partition(".")[0]
            if file and not names.has_definition(file, name):
                yield f"{file}:{name}"

    def _imported_by_name(self, names: Names) -> Iterator[str]:
        for module in self._looked_up:
            file = self._file_of(module)
            if file and not names.is_whole(file):
                yield file

    def _read_in_code(self, names: Names) -> Iterator[str]:
        for path in self._files.read:
            file = self._file(path)
            if file and not file.endswith(_SOURCE) and not names.has_file(file):
                yield file
        if any(os.path.join(path, "").startswith(self._code) for path in self._files.listed):  # noqa: PTH118
            yield LISTING
        if self._starts_processes or any(name in sys.modules for name in _STARTERS):
            yield EVERYTHING  # all that another process can import

    def _read_source(self) -> Iterator[str]:
        """Modules whose text was read as data, comments and all."""
        for path in self._files.read:
            file = self._file(path)
            if file.endswith(_SOURCE):
                yield file

    def _loaded_files(self) -> set[str]:
        paths = {code.co_filename for code in self._modules}
        # Not by getattr, which calls the __getattr__ of a module that has one.
        paths |= {
            str(getattr(module, "__dict__", {}).get("__file__")) for module in list(sys.modules.values())
        }
        return {file for file in map(self._file, paths) if file}

    def _functions(self) -> list[CodeType]:
        for module in self._modules[self._walked :]:
            _add_functions(module, self._found)
        self._walked = len(self._modules)
        return self._found

    def _file_of(self, module: str) -> str:
        return self._file(str(getattr(sys.modules.get(module), "__file__", None)))

    def _file(self, path: str) -> str:
        """The name of a file of the project in the code archive; empty for another file."""
        name = path.removeprefix(self._code)
        is_other = name == path or "__pycache__" in name or name.startswith("periplus-runner/")
        return "" if is_other else name


def _add_functions(code: CodeType, found: list[CodeType]) -> None:
    for one in code.co_consts:
        if type(one) is CodeType:
            if one.co_flags & _IS_FUNCTION:
                found.append(one)
            _add_functions(one, found)


def _environment_class(base: type, notice: Callable[[str], None]) -> type:
    """A class of `os.environ` that notices which variables are read that differ from pod to pod, or from machine to machine."""

    class ObservedEnvironment(base):  # type: ignore[misc]
        def __getitem__(self, key: str) -> str:
            value: str = super().__getitem__(key)
            if (
                key in _VOLATILE
                or key.startswith(_VOLATILE_PREFIXES)
                or any(p in key for p in _VOLATILE_PARTS)
            ):
                notice(key)
            return value

    return ObservedEnvironment
