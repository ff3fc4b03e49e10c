"""Annotations of functions and records, resolved without importing numpy or scikit-learn for them."""

from __future__ import annotations

import importlib
import sys
import typing
from functools import cache
from importlib.machinery import SourceFileLoader
from typing import Any

from periplus.sdk.errors import PipelineError

# Annotations that only a type checker imports are looked up by name for these packages, so that to compile a
# pipeline costs no import of them; a step imports them when it runs.
STAND_INS = ("numpy", "sklearn")


def hints(subject: Any) -> dict[str, Any]:
    """The resolved annotations of a function or class, with `return`, and with `Annotated` around them.

    Names that are imported under `if TYPE_CHECKING:` are found too. Raises PipelineError for a name that is
    not defined anywhere.
    """
    try:
        return typing.get_type_hints(subject, include_extras=True)
    except NameError:
        pass
    except (TypeError, SyntaxError) as broken:
        raise PipelineError(f"an annotation cannot be read: {broken}", function=_name(subject)) from broken
    try:
        return typing.get_type_hints(subject, localns=_checked_names(_module(subject)), include_extras=True)
    except NameError as missing:
        raise PipelineError(
            f"an annotation names {missing.name!r}, which is not defined",
            function=_name(subject),
            fix=f"import {missing.name} in {_module(subject)}",
        ) from missing


def mro_names(annotation: Any) -> list[tuple[str, str]]:
    """(module, name) of a class and its bases, or nothing for what is not a class."""
    if not isinstance(annotation, type):
        return []
    return [(base.__module__, base.__qualname__) for base in annotation.__mro__]


def type_name(annotation: Any) -> str:
    """An annotation as its author would write it."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")


def _name(subject: Any) -> str:
    return str(getattr(subject, "__qualname__", subject))


def _module(subject: Any) -> str:
    return str(getattr(subject, "__module__", "__main__"))


@cache
def _checked_names(module: str) -> dict[str, Any]:
    """What the `if TYPE_CHECKING:` blocks of a module would have bound."""
    import ast

    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None:
        return {}
    # By the import system, as when it was imported: to the observation of a step's process it is no file that the step reads.
    tree = ast.parse(SourceFileLoader(module, path).get_data(path), path)
    names: dict[str, Any] = {}
    for block in tree.body:
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING"):
            for statement in block.body:
                names.update(_bound(statement, sys.modules[module].__package__ or ""))
    return names


def _bound(statement: Any, package: str) -> dict[str, Any]:
    import ast

    if isinstance(statement, ast.Import):
        return {
            alias.asname or alias.name.split(".")[0]: _package(
                alias.name if alias.asname else alias.name.split(".")[0]
            )
            for alias in statement.names
        }
    if isinstance(statement, ast.ImportFrom):
        source = "." * statement.level + (statement.module or "")
        return {alias.asname or alias.name: _member(source, alias.name, package) for alias in statement.names}
    return {}


def _package(name: str) -> Any:
    return _stand_in(name) if name.split(".", maxsplit=1)[0] in STAND_INS else importlib.import_module(name)


def _member(source: str, name: str, package: str) -> Any:
    if source.split(".", maxsplit=1)[0] in STAND_INS:
        return _stand_in(f"{source}.{name}")
    module = importlib.import_module(source, package)
    if hasattr(module, name):
        return getattr(module, name)
    return importlib.import_module(f"{module.__name__}.{name}")


class _StandIn(type):
    """A name of a package that is not imported: a class, and also what holds further names."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _stand_in(f"{cls.__module__}.{cls.__qualname__}".lstrip(".") + f".{name}")

    def __getitem__(cls, _: Any) -> Any:
        return cls


@cache
def _stand_in(name: str) -> type:
    module, _, last = name.rpartition(".")
    return _StandIn(last, (), {"__module__": module})
