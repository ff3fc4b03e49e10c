"""How values that are no small JSON travel: one file format for each type, chosen by the annotation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar, get_args, get_origin

from periplus.sdk.annotations import mro_names, shown
from periplus.sdk.conversion import from_json, to_json
from periplus.sdk.errors import MismatchError, PipelineError
from periplus.sdk.shapes import is_json

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Format(Protocol):
    """A file format. The suffix is part of the file's declared path."""

    @property
    def name(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    def write(self, value: Any, path: Path) -> None:
        """Write the value to the path. Raises MismatchError for a value of another type."""

    def read(self, path: Path) -> Any:
        """Read back what write wrote."""


class _AsFile:
    """The mark that Artifact[…] puts on a type."""


# `Artifact[dict[str, int]]` is a dict to the function and to type checkers; it travels as a file.
Artifact = Annotated[T, _AsFile()]


def format_of(annotation: Any) -> Format | None:
    """The file format for values of this annotation; None when they travel as a JSON parameter.

    Raises PipelineError for a type that Periplus cannot pass from step to step.
    """
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        if any(isinstance(mark, _AsFile) for mark in marks):
            return format_of(inner) or JsonFile(inner)
        return format_of(inner)
    if is_json(annotation):
        return None
    bases = mro_names(get_origin(annotation) or annotation)
    for accepts, chosen in _FORMATS:
        if accepts(bases):
            return chosen
    raise PipelineError(
        f"values of type {shown(annotation)} cannot pass from step to step",
        fix="use JSON types (bool, int, float, str, None, list, dict, dataclass, NamedTuple, TypedDict), bytes, "
        "Path, numpy.ndarray or a scikit-learn estimator",
    )


class Bytes:
    """Bytes, as they are."""

    name = "bytes"
    suffix = ".bin"

    def write(self, value: Any, path: Path) -> None:
        if not isinstance(value, bytes):
            raise MismatchError(f"expected bytes, got {type(value).__qualname__}")
        path.write_bytes(value)

    def read(self, path: Path) -> Any:
        return path.read_bytes()


class Files:
    """A file or a folder. It is copied: what a step returns may be a file that the user keeps."""

    name = "path"
    suffix = ""

    def write(self, value: Any, path: Path) -> None:
        if not isinstance(value, Path):
            raise MismatchError(f"expected a Path, got {type(value).__qualname__}")
        import shutil

        if value.is_dir():
            shutil.copytree(value, path)
        elif value.is_file():
            shutil.copyfile(value, path)
        else:
            raise MismatchError(f"the step returned the path {value}, and nothing is there")

    def read(self, path: Path) -> Any:
        return path


class Npy:
    """A numpy array as .npy, without pickle: equal arrays give equal bytes."""

    name = "npy"
    suffix = ".npy"

    def write(self, value: Any, path: Path) -> None:
        import numpy as np

        if not isinstance(value, np.ndarray):
            raise MismatchError(f"expected a numpy array, got {type(value).__qualname__}")
        if value.dtype.hasobject:
            raise MismatchError(f"the array's dtype is {value.dtype}: Python objects are not written as .npy")
        with path.open("wb") as file:
            np.save(file, np.asarray(value, order="C"), allow_pickle=False)

    def read(self, path: Path) -> Any:
        import numpy as np

        return np.load(path, allow_pickle=False)


class Estimator:
    """A scikit-learn estimator by joblib, which is pickle inside: only a step loads it, never a service."""

    name = "joblib"
    suffix = ".joblib"

    def write(self, value: Any, path: Path) -> None:
        import joblib

        if ("sklearn.base", "BaseEstimator") not in mro_names(type(value)):
            raise MismatchError(f"expected a scikit-learn estimator, got {type(value).__qualname__}")
        joblib.dump(value, path)  # type: ignore[no-untyped-call]

    def read(self, path: Path) -> Any:
        import joblib

        return joblib.load(path)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class JsonFile:
    """JSON that is too large for a parameter, as a file."""

    annotation: Any
    name = "json"
    suffix = ".json"

    def write(self, value: Any, path: Path) -> None:
        data = to_json(value, self.annotation)
        path.write_text(json.dumps(data, sort_keys=True, ensure_ascii=False, allow_nan=False), "utf-8")

    def read(self, path: Path) -> Any:
        return from_json(json.loads(path.read_text("utf-8")), self.annotation)


Bases = list[tuple[str, str]]


def _is_path(bases: Bases) -> bool:
    return any(module.startswith("pathlib") and name == "Path" for module, name in bases)


def _is_array(bases: Bases) -> bool:
    return any(module.split(".")[0] == "numpy" and name in ("ndarray", "NDArray") for module, name in bases)


def _is_estimator(bases: Bases) -> bool:
    return bool(bases) and any(module.split(".")[0] == "sklearn" for module, _ in bases)


_FORMATS: list[tuple[Callable[[Bases], bool], Format]] = [
    (lambda bases: ("builtins", "bytes") in bases, Bytes()),
    (_is_path, Files()),
    (_is_array, Npy()),
    (_is_estimator, Estimator()),
]
