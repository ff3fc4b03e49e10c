"""File formats: chosen by the annotation, equal arrays as equal bytes, no pickle for arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression

from periplus.sdk import Artifact
from periplus.sdk.errors import MismatchError, PipelineError
from periplus.sdk.values.annotations import hints
from periplus.sdk.values.formats import format_of


class Custom(BaseEstimator):
    pass


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (bytes, "bytes"), (Path, "path"), (np.ndarray, "npy"), (npt.NDArray[np.float64], "npy"),
        (LogisticRegression, "joblib"), (BaseEstimator, "joblib"), (Custom, "joblib"),
        (Artifact[dict[str, Any]], "json"), (Artifact[list[int]], "json"), (Artifact[bytes], "bytes"),
        (int, None), (dict[str, int], None), (list, None),
    ],
)  # fmt: skip
def test_the_annotation_chooses_the_format(annotation, name):
    chosen = format_of(annotation)
    assert (chosen.name if chosen else None) == name


@pytest.mark.parametrize("annotation", [object, Any, list[np.ndarray], type])
def test_a_type_that_cannot_be_passed_is_refused_with_a_list_of_those_that_can(annotation):
    with pytest.raises(PipelineError, match="cannot pass from step to step\n  fix: use JSON types"):
        format_of(annotation)


def test_annotations_that_only_the_type_checker_imports_choose_a_format_without_an_import(write, tmp_path):
    text = """
    from __future__ import annotations
    from typing import TYPE_CHECKING
    if TYPE_CHECKING:
        import numpy as np
        import numpy.typing as npt
        from sklearn.svm import SVC
        from pathlib import Path
        from sklearn import svm
    def f(a: np.ndarray, b: npt.NDArray[np.float64], c: SVC, d: Path, e: svm.SVC) -> None: ...
    """
    import importlib.util
    import sys

    path = write({"only_checked.py": text}) / "only_checked.py"
    spec = importlib.util.spec_from_file_location("only_checked", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["only_checked"] = module
    spec.loader.exec_module(module)
    found = hints(module.f)
    assert [format_of(found[one]).name for one in "abcde"] == ["npy", "npy", "joblib", "path", "joblib"]
    del sys.modules["only_checked"]


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(5), np.array(["a", "ü"]), np.zeros((0, 3)), np.array([("a", 1)], dtype=[("n", "U1"), ("v", "i4")])],
)  # fmt: skip
def test_an_array_is_read_back_equal(tmp_path, array):
    npy = format_of(np.ndarray)
    npy.write(array, tmp_path / "a.npy")
    back = npy.read(tmp_path / "a.npy")
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_equal_arrays_give_equal_bytes_however_they_lie_in_memory(tmp_path):
    npy, array = format_of(np.ndarray), np.arange(12).reshape(3, 4)
    for name, one in (
        ("c", array),
        ("f", np.asfortranarray(array)),
        ("v", np.arange(24).reshape(3, 8)[:, ::2] // 2),
    ):
        npy.write(one, tmp_path / name)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "f").read_bytes() == (tmp_path / "v").read_bytes()


def test_arrays_of_python_objects_are_neither_written_nor_read(tmp_path):
    npy = format_of(np.ndarray)
    with pytest.raises(MismatchError, match="Python objects are not written"):
        npy.write(np.array([{}, None]), tmp_path / "o.npy")
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        npy.read(tmp_path / "pickled.npy")


def test_an_estimator_that_is_read_back_predicts_the_same(tmp_path):
    x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    model = LogisticRegression().fit(x, y)
    joblib = format_of(LogisticRegression)
    joblib.write(model, tmp_path / "m.joblib")
    assert np.array_equal(joblib.read(tmp_path / "m.joblib").predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(bytes, "text"), (Path, "text"), (Path, Path("/nowhere/at/all")), (np.ndarray, [1]), (LogisticRegression, {}), (Artifact[dict[str, int]], {"a": "b"})],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(tmp_path, annotation, value):
    with pytest.raises(MismatchError):
        format_of(annotation).write(value, tmp_path / "out")
