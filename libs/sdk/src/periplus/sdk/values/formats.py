"""The file formats of values that do not travel as a parameter, chosen by the annotation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar, get_args, get_origin

from periplus.sdk.errors import MismatchError, PipelineError
from periplus.sdk.values.annotations import mro_names, type_name
from periplus.sdk.values.conversion import from_json, mismatch
from periplus.sdk.values.parameters import dumps_file
from periplus.sdk.values.schema import is_json, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

COMPARED_BYTES = 4 << 20
"""How much of a written array is read back and compared at a time."""


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
    bases = mro_names(unwrap(get_origin(annotation) or annotation))
    for accepts, chosen in _FORMATS:
        if bases and accepts(bases):
            return chosen
    raise PipelineError(
        f"values of type {type_name(annotation)} cannot pass from step to step",
        fix=next((fix for base in bases if (fix := _INSTEAD.get(base))), _ANY_TYPE),
    )


_ANY_TYPE = (
    "use JSON types (bool, int, float, str, None, list, dict, dataclass, NamedTuple, TypedDict), bytes, Path, "
    "numpy.ndarray or a scikit-learn estimator"
)
_INSTEAD = {
    (
        "builtins",
        "dict",
    ): "use dict[str, …], as JSON's keys are texts, or list[tuple[…, …]] of list(value.items())",
    ("builtins", "set"): "use list[…] of sorted(value), so that equal sets are equal",
    ("builtins", "frozenset"): "use list[…] of sorted(value), so that equal sets are equal",
    ("builtins", "tuple"): "say what is in it, as tuple[int, str] or tuple[int, ...]",
    ("builtins", "complex"): "use tuple[float, float] of (value.real, value.imag)",
    ("builtins", "bytearray"): "use bytes",
    ("builtins", "memoryview"): "use bytes",
    ("collections", "deque"): "use list[…]",
    ("decimal", "Decimal"): "use str of str(value)",
    ("fractions", "Fraction"): "use tuple[int, int] of value.as_integer_ratio()",
    ("datetime", "date"): "use str of value.isoformat()",
    ("datetime", "time"): "use str of value.isoformat()",
    ("datetime", "timedelta"): "use float of value.total_seconds()",
    ("enum", "Enum"): "use the type of value.value, or Literal",
    ("uuid", "UUID"): "use str of str(value)",
    (
        "numpy.ma",
        "MaskedArray",
    ): "use numpy.ndarray of value.filled(…), or two of value.data and numpy.ma.getmaskarray(value)",
    ("numpy", "generic"): "use bool, int, float or str of value.item()",
    ("numpy", "ndarray"): "use numpy.ndarray of numpy.asarray(value)",
}
"""The type that would do, by a class whose values cannot pass or a base of it."""


class Bytes:
    """Bytes, as they are."""

    name = "bytes"
    suffix = ".bin"

    def write(self, value: Any, path: Path) -> None:
        if type(value) is not bytes:
            raise mismatch(value, bytes)
        path.write_bytes(value)

    def read(self, path: Path) -> Any:
        return path.read_bytes()


class Files:
    """A file or a folder, with the permissions of each file. It is copied: what a step returns may be a file that the
    user keeps. Its name is no part of the value: the step that takes it finds it under its argument's name.
    """

    name = "path"
    suffix = ""

    def write(self, value: Any, path: Path) -> None:
        if type(value) is not type(Path()):
            raise mismatch(value, Path)
        import shutil

        if value.is_dir():
            shutil.copytree(value, path)
        elif value.is_file():
            shutil.copy(value, path)
        else:
            raise MismatchError(f"the step returned the path {value}, and nothing is there")

    def read(self, path: Path) -> Any:
        return path


class Npy:
    """A numpy array as .npy, without pickle: equal arrays give equal bytes.

    Type, dtype (with its byte order), shape and every byte are kept; the order in memory is C's.
    """

    name = "npy"
    suffix = ".npy"

    def write(self, value: Any, path: Path) -> None:
        import numpy as np

        if type(value) is not np.ndarray:
            raise _no_array(value)
        if value.dtype.hasobject:
            raise MismatchError(
                f"the array's dtype is {value.dtype}: Python objects are not written as .npy",
                fix="return an array of numbers or fixed-width text, or a list",
            )
        if _has_metadata(value.dtype):
            raise MismatchError(
                f"the array's dtype has metadata, which .npy does not hold: {value.dtype!r}",
                fix="return array.astype(…) without metadata, and the metadata as an output of its own",
            )
        # A copy only if the array is not in C order.
        contiguous = np.asarray(value, order="C")
        try:
            with path.open("wb") as file:
                np.save(file, contiguous, allow_pickle=False)
            same = _is_written(contiguous, path)
        except (ValueError, TypeError) as refused:
            raise MismatchError(
                f"the array's dtype {value.dtype} cannot be written as .npy: {refused}"
            ) from refused
        if not same:
            raise MismatchError(
                f"an array of dtype {value.dtype!r} would be read back as another one",
                fix="return an array of a plain dtype, each field as an output of its own",
            )

    def read(self, path: Path) -> Any:
        import numpy as np

        return np.load(path, allow_pickle=False)


def _no_array(value: Any) -> MismatchError:
    kind = type(value)
    what = f"expected numpy.ndarray, got {kind.__module__.split('.')[0]}.{kind.__qualname__}"
    names = [name for module, name in mro_names(kind) if module.split(".")[0] == "numpy"]
    if "ndarray" not in names:
        return MismatchError(what, fix="return numpy.asarray(…) of it")
    if "MaskedArray" in names:
        return MismatchError(
            f"{what}: the mask would be lost",
            fix="return value.filled(…), or value.data and numpy.ma.getmaskarray(value) as two outputs",
        )
    fix = "return value.view(numpy.ndarray)"
    if "recarray" in names:
        fix = "return value.view(value.dtype.fields, numpy.ndarray)"
    return MismatchError(f"{what}: a subclass would arrive as numpy.ndarray", fix=fix)


def _has_metadata(dtype: Any) -> bool:
    if dtype.metadata:
        return True
    if dtype.subdtype:
        return _has_metadata(dtype.subdtype[0])
    return any(_has_metadata(field[0]) for field in (dtype.fields or {}).values())


def _is_written(array: Any, path: Path) -> bool:
    """Whether a file holds the dtype, the shape and each byte of an array, read in pieces of a few MiB."""
    import numpy as np

    back = np.load(path, mmap_mode="r" if array.nbytes else None, allow_pickle=False)
    # To `==` a dtype of numpy.record is the same as one of numpy.void; their repr differ, as do their elements.
    if (back.dtype, repr(back.dtype), back.shape) != (array.dtype, repr(array.dtype), array.shape):
        return False
    if not array.nbytes:
        return True
    written, held = (one.reshape(-1).view(np.uint8) for one in (back, array))
    return all(
        np.array_equal(written[start : start + COMPARED_BYTES], held[start : start + COMPARED_BYTES])
        for start in range(0, array.nbytes, COMPARED_BYTES)
    )


class Estimator:
    """A scikit-learn estimator by joblib, which is pickle inside: only a step loads it, never a service."""

    name = "joblib"
    suffix = ".joblib"

    def write(self, value: Any, path: Path) -> None:
        import joblib

        if ("sklearn.base", "BaseEstimator") not in mro_names(type(value)):
            raise MismatchError(f"expected a scikit-learn estimator, got {type(value).__qualname__}")
        try:
            joblib.dump(value, path)  # type: ignore[no-untyped-call]
            # Whether a step can load it, and as which type; arrays stay in the file.
            back = joblib.load(path, mmap_mode="c")  # type: ignore[no-untyped-call]
        except Exception as refused:  # whatever the pickling of the user's classes raises
            raise MismatchError(
                f"this {type(value).__qualname__} cannot be pickled: {type(refused).__name__}: {refused}",
                fix="build it of classes and functions that have a name in a module; no lambdas",
            ) from refused
        if type(back) is not type(value):
            raise MismatchError(
                f"is {type(value).__qualname__}, and would be read back as {type(back).__qualname__}"
            )

    def read(self, path: Path) -> Any:
        import joblib

        try:
            return joblib.load(path)  # type: ignore[no-untyped-call]
        except OSError:
            raise
        except Exception as broken:
            raise MismatchError(f"cannot be loaded: {type(broken).__name__}: {broken}") from broken


@dataclass(frozen=True)
class JsonFile:
    """JSON that is too large for a parameter, as a file."""

    annotation: Any
    name = "json"
    suffix = ".json"

    def write(self, value: Any, path: Path) -> None:
        path.write_text(dumps_file(value, self.annotation), "utf-8")

    def read(self, path: Path) -> Any:
        return from_json(json.loads(path.read_text("utf-8")), self.annotation)


Bases = list[tuple[str, str]]
"""Module and name of a class, then those of its bases."""


def _is_path(bases: Bases) -> bool:
    return bases[0][0].startswith("pathlib") and bases[0][1] in ("Path", type(Path()).__name__)


def _is_array(bases: Bases) -> bool:
    # Not its subclasses: .npy holds none of what they add.
    return bases[0][0].split(".")[0] == "numpy" and bases[0][1] in ("ndarray", "NDArray")


def _is_estimator(bases: Bases) -> bool:
    return any(module.split(".")[0] == "sklearn" for module, _ in bases)


_FORMATS: list[tuple[Callable[[Bases], bool], Format]] = [
    (lambda bases: bases[0] == ("builtins", "bytes"), Bytes()),
    (_is_path, Files()),
    (_is_array, Npy()),
    (_is_estimator, Estimator()),
]
