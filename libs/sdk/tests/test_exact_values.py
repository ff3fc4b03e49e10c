"""What a step takes is what the other one returned, in type and value, or the step that returned it fails."""

import array
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import math
import stat
import struct
import threading
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, Optional, TypedDict, Union

import numpy as np
import numpy.typing as npt
import pydantic.dataclasses
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression

from periplus.sdk import Artifact
from periplus.sdk.errors import MismatchError, PipelineError
from periplus.sdk.values.formats import JsonFile, format_of
from periplus.sdk.values.parameters import (
    dumps,
    dumps_fan_out_result,
    dumps_items,
    loads,
    loads_gathered,
    loads_parameter,
)


class Color(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    A = "a"


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Rows(list):
    pass


class Mapping(dict):
    pass


class Raw(bytes):
    pass


@dataclasses.dataclass
class Linear:
    width: int = 1


@dataclasses.dataclass
class Tree:
    width: int = 1


@dataclasses.dataclass
class Base:
    name: str


@dataclasses.dataclass
class Special(Base):
    depth: int = 9


@dataclasses.dataclass
class Cat:
    kind: Literal["cat"] = "cat"
    width: int = 1


@dataclasses.dataclass
class Dog:
    kind: Literal["dog"] = "dog"
    width: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    left: int
    right: float = 0.5


@dataclasses.dataclass
class Doubled:
    x: int

    def __post_init__(self) -> None:
        self.x *= 2


@dataclasses.dataclass
class Derived:
    side: float
    area: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.area = self.side**2

    @functools.cached_property
    def half(self) -> float:
        return self.side / 2


class Estimate:
    """Without an `==` of its own."""

    def __init__(self, bins: list[int]) -> None:
        self.bins = bins


@dataclasses.dataclass
class Fitted:
    count: int
    estimate: Estimate = dataclasses.field(init=False, compare=False)
    lock: Any = dataclasses.field(init=False, compare=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.estimate = Estimate([0] * self.count)

    def fit(self) -> "Fitted":
        self.estimate.bins[0] = 5
        return self


@dataclasses.dataclass
class Checked:
    share: float

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError("share is at most 1")


@dataclasses.dataclass
class NeedsMore:
    x: int
    seed: dataclasses.InitVar[int]


@dataclasses.dataclass
class Uncompared:
    x: int = dataclasses.field(compare=False, default=0)


@dataclasses.dataclass
class Deep:
    model: Linear | Tree
    tags: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class AlsoDict(dict):
    x: int = 1


@pydantic.dataclasses.dataclass
class Validated:
    x: int
    y: float = 0.5


class Model(pydantic.BaseModel):
    x: int = 1


class Pair(NamedTuple):
    left: int
    right: float = 0.5


class PairOfMore(Pair):
    pass


class Row(TypedDict):
    id: int
    note: NotRequired[str]


def grown(record: Any, **more: Any) -> Any:
    for name, value in more.items():
        setattr(record, name, value)
    return record


def warmed(record: Derived) -> Derived:
    assert record.half == record.side / 2
    return record


def holding_itself() -> list[Any]:
    itself: list[Any] = []
    itself.append(itself)
    return itself


def nested(depth: int) -> list[Any]:
    return functools.reduce(lambda inner, _: [inner], range(depth), [])


def named(part: Any) -> str:
    """An id for pytest that is the same in each process."""
    return getattr(part, "__name__", None) or type(part).__name__


def same(value: Any, back: Any) -> bool:
    """The same in type and value, written anew here: not what the SDK itself compares with."""
    if type(value) is not type(back):
        return False
    if isinstance(value, float):
        return struct.pack("d", value) == struct.pack("d", back)
    if isinstance(value, dict):
        return [*value] == [*back] and all(map(same, value.values(), back.values()))
    if isinstance(value, list | tuple):
        return len(value) == len(back) and all(map(same, value, back))
    if dataclasses.is_dataclass(value):
        return all(same(getattr(value, f.name), getattr(back, f.name)) for f in dataclasses.fields(value))
    return bool(value == back)


TRAVEL = [
    (0, int), (-7, int), (2**64 + 1, int), (10**4000, int), (True, bool), (None, None), ("", str),
    (0.1, float), (-0.0, float), (5e-324, float), (1.7976931348623157e308, float), (1e16, float), (1e-7, float),
    (3, int | float), (3.0, int | float), (True, int | bool), (1, bool | int), (1, Union[float, int]),  # noqa: UP007
    (None, Optional[int]), ("1", int | str), (1, int | str), (-0.0, float | None),  # noqa: UP045
    ("\x00\x7f\x85\u2028\ufeff\U0001f980é\u0065\u0301", str), ("a\r\nb\n", str), (" 7 ", str), ("null", str | None),
    ("a", Literal["a", "b", 1]), (1, Literal["a", True, 1]), (True, Literal[1, True]), (None, Literal["a"] | None),
    ([], list[int]), ([1, 2], list[int]), ([-0.0, 0.0, 1e300], list[float]), ([True, False], list[bool]),
    ([1, 2.0, True, None, "x", [], {}], list[Any]), ([1, 2.0, True], list), ([[1.5], []], list[list[float]]),
    ((), tuple[()]), ((1, "a"), tuple[int, str]), ((1, 2), tuple[int, ...]), ([(1, 2)], list[tuple[int, int]]),
    ((1,), list[str] | tuple[int]),
    ({"b": 1, "a": 2}, dict[str, int]), ({"width": 10.0, "age": -0.0}, dict[str, float]), ({"b": {"z": 1, "a": 2}}, dict),
    ({"z": [1, {"y": 1, "x": True}], "a": None}, dict[str, Any]), ({"": ""}, dict[str, str]),
    ({"note": "n", "id": 1}, Row), ({"id": 1}, Row), ([{"note": "n", "id": 1}], list[Row]),
    (Pair(1, 2.0), Pair), ([Pair(1, -0.0)], list[Pair]), (Linear(3), Linear), (Linear(3), Linear | Tree),
    (Special("s", 4), Special), (Special("s", 4), Base | Special), (Base("b"), Base | Special),
    (Dog(width=3), Cat | Dog), (Cat(width=3), Cat | Dog), (Deep(Linear(2), {"z": 1.0, "a": 2.0}), Deep),
    (Slots(left=1), Slots), (Derived(2.0), Derived), (warmed(Derived(2.0)), Derived), (Checked(0.5), Checked),
    (Uncompared(4), Uncompared), (Validated(1, 2.0), Validated),
]  # fmt: skip


@pytest.mark.parametrize(("value", "annotation"), TRAVEL, ids=named)
def test_a_value_arrives_as_it_was_returned(value, annotation, tmp_path):
    assert same(value, loads(dumps(value, annotation), annotation))
    assert same(value, loads_parameter(dumps_fan_out_result(value, annotation), annotation))
    (one,) = loads_gathered(dumps_items([value], list[annotation]), list[annotation])
    assert same(value, one)
    JsonFile(annotation).write(value, tmp_path / "v.json")
    assert same(value, JsonFile(annotation).read(tmp_path / "v.json"))


UTC = dt.UTC
REFUSED = [
    # a union's other member, and a subclass that would lose what it adds
    (Tree(3), Linear | Tree), ([Linear(1), Tree(3)], list[Linear | Tree]), (Deep(Tree(1)), Deep), ((1, 2), list[int] | tuple[int, ...]),
    (Special("s", 4), Base), ([Special("s", 4)], list[Base]), (PairOfMore(1), Pair), (Pair(1), tuple[int, float]),
    # numbers
    (True, int), (True, float), (1, bool), (1.0, int), (2**60 + 1, float), (10**400, float), (10**5000, int), (Whole(1), int), (Real(1.0), float),
    (Level.LOW, int), (decimal.Decimal("0.1"), float), (fractions.Fraction(1, 3), float), (1j, float),
    (math.nan, float), (math.inf, float), (-math.inf, float | None), ({"a": [math.nan]}, dict[str, list[float]]), ([math.inf], list[Any]),
    (np.longdouble("0.1"), float), (np.float32("nan"), float), (np.timedelta64(5, "s"), int), (np.timedelta64(5, "ns"), int), (np.datetime64(5, "ns"), int),
    (np.int64(2**60 + 1), float), (np.complex128(1), float), (np.array(1.0), float), (np.array([1.0]), list[float]), (np.void(b"1"), int), (np.bytes_(b"a"), str),
    (np.float64(0.5), int | str), (np.bool_(True), int),
    # texts
    (Text("x"), str), (Word.A, str), (Word.A, Literal["a"]), (Color.RED, str), (b"x", str), ("\ud800", str), ({"\udfff": 1}, dict[str, int]), (Path("x"), str),
    # lists, tuples, dicts
    (Rows([1]), list[int]), ((1,), list[int]), ([1], tuple[int]), ([1], tuple[int, ...]), (deque([1]), list[int]), (range(3), list[int]), (array.array("i", [1]), list[int]),
    ({1}, list[int]), (frozenset({1}), list[int]), (iter([1]), list[int]), ({"a": 1}.items(), list[Any]),
    (Mapping(a=1), dict[str, int]), (OrderedDict(a=1), dict[str, int]), (defaultdict(int, a=1), dict[str, int]), (Counter("ab"), dict[str, int]), (UserDict(a=1), dict[str, int]),
    ({1: "a"}, dict[str, str]), ({1.0: 1}, dict), ({None: 1}, dict), ({True: 1}, dict), ({(1, 2): 1}, dict), ({Word.A: 1}, dict[str, int]), ({Text("a"): 1}, dict[str, int]),
    (OrderedDict(id=1), Row), ({"id": 1, "more": 2}, Row), ({"id": True}, Row), ({"note": "a"}, Row),
    # where nothing but JSON is declared, nothing but JSON is taken
    ({"shape": (2, 3)}, dict[str, Any]), ({"keys": {1: "one"}}, dict[str, Any]), ([np.float64(1.0)], list[Any]), ({"n": np.int64(1)}, dict), ([Word.A], list), ([Linear()], list[Any]),
    ([{1}], list[Any]), ([dt.datetime(2026, 1, 1, tzinfo=UTC)], list[Any]), ([decimal.Decimal(1)], list), ([bytearray(b"x")], list), ([Pair(1)], list[Any]), ([Color.RED], list),
    ([Model()], list[Any]), ({"d": OrderedDict()}, dict[str, Any]), ([Path()], list[Any]), ([...], list[Any]),
    # records that their declared fields do not determine
    (Fitted(2).fit(), Fitted), (Doubled(1), Doubled), (grown(Linear(1), extra=2), Linear), (grown(Derived(2.0), area=5.0), Derived), (grown(Checked(0.5), share=2.0), Checked), (NeedsMore(1, 2), NeedsMore),
    (grown(Linear(), width="x"), Linear), (grown(Validated(1), x="1"), Validated), ({"width": 1}, Linear), (Linear, Linear),
    (holding_itself(), list[Any]), (nested(5000), list), ("x" * 100_000, str),
]  # fmt: skip


@pytest.mark.parametrize(("value", "annotation"), REFUSED, ids=named)
def test_what_would_arrive_as_another_value_is_refused_where_it_is_returned(value, annotation, tmp_path):
    with pytest.raises(MismatchError):
        dumps(value, annotation)
    with pytest.raises(MismatchError):
        dumps_fan_out_result(value, annotation)
    with pytest.raises(MismatchError):
        dumps_items([value], list[annotation])
    if not isinstance(value, str) or len(value) < 1000:  # a file takes a long text
        with pytest.raises(MismatchError):
            JsonFile(annotation).write(value, tmp_path / "v.json")


@pytest.mark.parametrize(
    ("value", "annotation", "arrives"),
    [
        (3, float, 3.0), (2**60, float, float(2**60)), ([1, 2.5], list[float], [1.0, 2.5]), (Pair(1, 2), Pair, Pair(1, 2.0)), (np.int64(3), int, 3),
        (np.uint64(2**64 - 1), int, 2**64 - 1), (np.int8(3), float, 3.0), (np.float32(0.1), float, 0.10000000149011612), (np.float16(0.5), float, 0.5),
        (np.float64(-0.0), float, -0.0), (np.bool_(False), bool, False), (np.str_("é"), str, "é"), ({np.str_("a"): np.int32(1)}, dict[str, int], {"a": 1}),
        (np.int64(3), int | float, 3), (np.int64(3), float | int, 3), (np.float64(3), int | float, 3.0), ([np.float64(1)], list[float], [1.0]), (Linear(np.int64(3)), Linear, Linear(3)),
    ],
)  # fmt: skip
def test_an_equal_number_of_numpy_or_int_arrives_as_the_type_that_is_declared(value, annotation, arrives):
    assert same(arrives, loads(dumps(value, annotation), annotation))


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (Tree(3), Linear | Tree, r"is Tree\(width=3\) \(Tree\), and what takes .*Linear \| .*Tree would get Linear\(width=3\) \(Linear\)\n  fix: .*kind: Literal"),
        ((1,), list[int] | tuple[int, ...], r"is \(1,\) \(tuple\).* would get \[1\] \(list\)\n  fix: annotate one type: JSON"),
        (Special("s"), Base, r"expected Base, got Special.*: a subclass would arrive as Base\n  fix: annotate Special"),
        (Counter("a"), dict[str, int], r"expected dict\[str, int\], got Counter.*\n  fix: convert it to dict"),
        (Word.A, str, r"a subclass would arrive as str\n  fix: convert it to str"),
        (2**60 + 1, float, r"is the int 1152921504606846977, which no float equals\n  fix: annotate int"),
        ([(1, {"a": {1}})], list[tuple[int, dict[str, Any]]], r"^\[0\]\[1\]\.a: is set, which JSON cannot say\n  fix: convert"),
        (Deep(Linear(), {"z": math.nan}), Deep, r"^tags\.z: is nan, which JSON cannot say\n  fix: return None"),
        (Deep(Tree()), Deep, r"^model: is Tree"),
        (Doubled(1), Doubled, r"^x: is 2 \(int\), and what takes Doubled would get 4 \(int\)\n  fix: .*__post_init__"),
        (grown(Linear(), extra=1), Linear, r"Linear holds extra, which is no declared field and would be lost\n  fix: declare extra"),
        (NeedsMore(1, 2), NeedsMore, r"NeedsMore cannot be made of its fields: TypeError: .*'seed'"),
    ],
)  # fmt: skip
def test_the_refusal_names_the_path_the_value_and_the_fix(value, annotation, message):
    with pytest.raises(MismatchError, match=message):
        dumps(value, annotation)


@pytest.mark.parametrize(
    "annotation",
    [
        dict[int, str], dict[int | str, str], dict[Word, int], set[int], frozenset[str], deque[int], OrderedDict[str, int], defaultdict[str, int], Counter[str],
        Color, Word, Level, decimal.Decimal, dt.datetime, dt.date, bytearray, memoryview, complex, tuple, Model, AlsoDict, Raw, Text, Any, object,
        np.ma.MaskedArray, np.matrix, np.recarray, np.memmap, np.float64, list[np.ndarray], Linear | np.ndarray, Literal[Color.RED], type(iter([])), list[Color],
    ],
)  # fmt: skip
def test_a_type_that_would_lose_something_is_refused_before_anything_runs(annotation):
    with pytest.raises(PipelineError, match="cannot pass from step to step"):
        format_of(annotation)


@pytest.mark.parametrize(
    ("annotation", "fix"),
    [
        (dict[int, str], "use dict[str, …]"), (OrderedDict[str, int], "use dict[str, …]"), (set[int], "use list[…] of sorted"), (tuple, "as tuple[int, str]"),
        (decimal.Decimal, "use str of str(value)"), (dt.datetime, "use str of value.isoformat()"), (Color, "use the type of value.value"), (Word, "use the type of value.value"),
        (complex, "use tuple[float, float]"), (np.ma.MaskedArray, "of value.filled(…)"), (np.matrix, "of numpy.asarray(value)"), (np.float64, "of value.item()"), (Model, "use JSON types"),
    ],
)  # fmt: skip
def test_the_refusal_of_a_type_names_the_one_that_would_do(annotation, fix):
    with pytest.raises(PipelineError) as refused:
        format_of(annotation)
    assert fix in refused.value.fix


text = st.text(max_size=8)  # with surrogates, which are refused
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.sampled_from([Word.A, Level.LOW, Whole(1), Text("x")])
    | st.sampled_from([np.int64(5), np.float32(0.1), np.str_("s"), np.bool_(True), np.timedelta64(1, "ns"), np.longdouble("0.1")])
)  # fmt: skip
records = st.one_of(
    st.builds(Linear, st.integers() | st.booleans()), st.builds(Tree, st.integers()), st.builds(Special, text), st.builds(Base, text), st.builds(Pair, st.integers(), scalars),
    st.builds(Dog, width=st.integers()), st.builds(Cat, width=st.integers()), st.builds(Doubled, st.integers()),
)  # fmt: skip
anything = st.recursive(
    scalars | records,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=3).map(tuple), st.lists(inner, max_size=3).map(Rows),
        st.dictionaries(text | st.integers(0, 3), inner, max_size=4), st.dictionaries(text, inner, max_size=3).map(OrderedDict), st.dictionaries(text, inner, max_size=3).map(Counter),
        st.sets(st.integers(), max_size=2), st.builds(Deep, inner, inner),
    ),
    max_leaves=12,
)  # fmt: skip
annotations = st.recursive(
    st.sampled_from([None, bool, int, float, str, Any, list, dict, Linear, Tree, Base, Special, Pair, Cat, Dog, Row, Deep, Doubled, Literal["a", 1, True]]),
    lambda inner: st.one_of(
        inner.map(lambda one: list[one]), inner.map(lambda one: dict[str, one]), inner.map(lambda one: tuple[one, ...]),
        st.lists(inner, min_size=2, max_size=3).map(lambda members: Union[tuple(members)]),  # noqa: UP007
        st.lists(inner, max_size=3).map(lambda members: tuple[tuple(members)]),
    ),
    max_leaves=5,
)  # fmt: skip


def widened(value: Any, back: Any) -> bool:
    """The same but for numbers that have become the declared type, and are equal."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is int and type(back) is float:
        return value == int(back)
    if type(value) is type(back):
        if isinstance(value, dict):
            return [*value] == [*back] and all(map(widened, value.values(), back.values()))
        if isinstance(value, list | tuple):
            return len(value) == len(back) and all(map(widened, value, back))
        if dataclasses.is_dataclass(value):
            return all(
                widened(getattr(value, f.name), getattr(back, f.name)) for f in dataclasses.fields(value)
            )
    return same(value, back)


@settings(max_examples=1500, deadline=None)
@given(anything, annotations)
def test_any_value_under_any_annotation_arrives_as_it_was_or_is_refused(value: Any, annotation: Any):
    try:
        written = dumps(value, annotation)
    except MismatchError:
        return
    assert widened(value, loads(written, annotation)), written


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_value_of_the_declared_types_and_no_union_is_never_refused(data: st.DataObject):
    valid = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    finite = st.floats(allow_nan=False, allow_infinity=False)
    leaves = st.sampled_from([(int, st.integers()), (float, finite), (str, valid), (bool, st.booleans()), (Linear, st.builds(Linear, st.integers())), (Pair, st.builds(Pair, st.integers(), finite))])  # fmt: skip
    typed = st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3))),
            inner.map(lambda one: (dict[str, one[0]], st.dictionaries(valid, one[1], max_size=3))),
            inner.map(lambda one: (tuple[one[0], int], st.tuples(one[1], st.integers()))),
        ),
        max_leaves=3,
    )
    annotation, values = data.draw(typed)
    value = data.draw(values)
    assert same(value, loads(dumps(value, annotation), annotation))


# Files


def in_fortran_order() -> Any:
    return np.asfortranarray(np.arange(6).reshape(2, 3))


ARRAYS = [
    np.arange(6.0).reshape(2, 3), in_fortran_order(), np.arange(24).reshape(3, 8)[:, ::2], np.array(5), np.zeros((0, 3)), np.zeros((3, 0), "U5"), np.array([], "V0"),
    np.arange(3, dtype=">f8"), np.arange(3, dtype="<i2"), np.arange(3, dtype=">u4"), np.array([True]), np.array([1 + 2j], ">c16"), np.array([np.nan, -0.0, np.inf, -np.nan]),
    np.array(["2026-01-01", "NaT"], "M8[D]"), np.array([5], "M8[25us]"), np.array([5, 7], "m8[ns]"), np.array(["a", "ü"]), np.array([b"a\0", b"bc"]), np.array([b"xyz"], "V3"),
    np.array([("a", 1)], dtype=[("n", "U1"), ("v", ">i4")]), np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=False)), np.zeros(3, [("p", "f4", (2, 2)), ("q", [("r", "i8")])]),
    np.zeros(2, np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [4], "titles": ["T"]})), np.float16([1.5]), np.longdouble([0.1]), np.broadcast_to(np.arange(3), (2, 3)), np.arange(5)[::-1],
]  # fmt: skip


@pytest.mark.parametrize("value", ARRAYS, ids=lambda one: f"{one.dtype}-{one.shape}")
def test_an_array_arrives_with_its_dtype_shape_and_bytes(value, tmp_path):
    format_of(np.ndarray).write(value, tmp_path / "a.npy")
    back = format_of(npt.NDArray[np.float64]).read(tmp_path / "a.npy")
    assert type(back) is np.ndarray
    assert (back.dtype, back.dtype.byteorder, back.shape) == (value.dtype, value.dtype.byteorder, value.shape)
    assert back.tobytes() == value.tobytes()


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(hnp.array_dtypes() | hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)))
def test_any_array_arrives_as_it_was_or_is_refused(tmp_path_factory, value):
    file = tmp_path_factory.getbasetemp() / "any.npy"
    try:
        format_of(np.ndarray).write(value, file)
    except MismatchError:
        return
    back = format_of(np.ndarray).read(file)
    assert (back.dtype, back.shape, back.tobytes()) == (value.dtype, value.shape, value.tobytes())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ma.masked_greater([1.0, 9999.0], 1000.0), r"got numpy\.\S*MaskedArray: the mask would be lost\n  fix: return value\.filled"),
        (np.ma.masked_array([1.0, 2.0]), "the mask would be lost"),
        (np.matrix([[1.0]]), r"got numpy\.matrix: a subclass would arrive as numpy\.ndarray\n  fix: return value\.view"),
        (np.array([(1, 2.0)], [("a", int), ("b", float)]).view(np.recarray), r"recarray: a subclass would.*\n  fix: return value\.view\(value\.dtype\.fields, numpy"),
        (np.array([(1, 2.0)], [("a", int), ("b", float)]).view(np.recarray).view(np.ndarray), r"numpy\.record.* would be read back as another"),
        (np.ma.mrecords.fromarrays([[1], [2]], names="a,b") if hasattr(np.ma, "mrecords") else np.matrix([1]), "would"),
        (np.array([{}, None]), "Python objects are not written"), (np.array([("a", [])], [("a", "U1"), ("b", object)]), "Python objects are not written"),
        (np.array(["a"], np.dtypes.StringDType()), "cannot be written|Python objects"), (np.zeros(2, np.dtype("i4", metadata={"unit": "m"})), "metadata"),
        (np.zeros(2, [("a", np.dtype("i4", metadata={"unit": "m"}))]), "metadata"), (np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)), "read back as another"),
        (np.float64(1.0), "expected numpy.ndarray, got numpy.float64"), ([1.0], "got builtins.list"), (memoryview(b"x"), "memoryview"),
    ],
    ids=named,
)  # fmt: skip
def test_an_array_that_npy_cannot_hold_is_refused_with_what_to_return_instead(value, message, tmp_path):
    with pytest.raises(MismatchError, match=message):
        format_of(np.ndarray).write(value, tmp_path / "a.npy")


def test_a_memory_map_is_refused_as_its_file_may_change(tmp_path):
    np.save(tmp_path / "on_disk.npy", np.arange(3))
    with pytest.raises(MismatchError, match="memmap: a subclass would"):
        format_of(np.ndarray).write(np.load(tmp_path / "on_disk.npy", mmap_mode="r"), tmp_path / "a.npy")


def test_a_large_array_is_compared_without_a_second_copy_of_it(tmp_path):
    import tracemalloc

    value = np.zeros(8_000_000)
    tracemalloc.start()
    format_of(np.ndarray).write(value, tmp_path / "a.npy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < value.nbytes / 4


@pytest.mark.parametrize("value", [bytearray(b"x"), memoryview(b"x"), Raw(b"x"), np.bytes_(b"x"), "x", None])
def test_only_bytes_pass_for_bytes(value, tmp_path):
    with pytest.raises(MismatchError, match="expected bytes"):
        format_of(bytes).write(value, tmp_path / "b.bin")


class OwnPath(type(Path())):
    pass


@pytest.mark.parametrize("value", ["x", b"x", OwnPath("x"), None])
def test_only_a_path_passes_for_a_path(value, tmp_path):
    with pytest.raises(MismatchError, match="expected Path"):
        format_of(Path).write(value, tmp_path / "out")


def test_a_file_and_a_folder_keep_their_content_and_permissions(tmp_path):
    program = tmp_path / "folder" / "run.sh"
    program.parent.mkdir()
    program.write_bytes(b"#!/bin/sh\r\n")
    program.chmod(0o755)
    for source, inside in ((program, ""), (program.parent, "run.sh")):
        target = tmp_path / f"out-{source.name}"
        format_of(Path).write(source, target)
        back = format_of(Path).read(target) / inside
        assert back.read_bytes() == b"#!/bin/sh\r\n"
        assert stat.S_IMODE(back.stat().st_mode) == 0o755


class WithState(BaseEstimator):
    def __init__(self, made: Any = None):
        self.made = made


class Disguised(BaseEstimator):
    def __reduce__(self):
        return LogisticRegression, ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (WithState(lambda: 1), "cannot be pickled"), (WithState(open), None), (WithState(iter([])), None), (WithState(np.ma.masked_array([1.0], [True])), None),
        (Disguised(), "would be read back as LogisticRegression"), (WithState(one for one in "a"), "cannot be pickled"),
    ],
    ids=named,
)  # fmt: skip
def test_an_estimator_is_loaded_before_the_step_ends(value, message, tmp_path):
    if message:
        with pytest.raises(MismatchError, match=message):
            format_of(BaseEstimator).write(value, tmp_path / "m.joblib")
        return
    format_of(LogisticRegression).write(value, tmp_path / "m.joblib")
    assert type(format_of(BaseEstimator).read(tmp_path / "m.joblib").made) is type(value.made)


def test_a_file_that_is_no_pickle_is_a_typed_error(tmp_path):
    (tmp_path / "m.joblib").write_bytes(b"no pickle")
    with pytest.raises(MismatchError, match="cannot be loaded"):
        format_of(BaseEstimator).read(tmp_path / "m.joblib")


def test_artifact_of_a_type_is_as_exact_as_the_type(tmp_path):
    form = format_of(Artifact[dict[str, Any]])
    form.write({"z": [1, True, -0.0], "a": {"y": None, "x": "é"}}, tmp_path / "v.json")
    assert same({"z": [1, True, -0.0], "a": {"y": None, "x": "é"}}, form.read(tmp_path / "v.json"))
    with pytest.raises(MismatchError, match="surrogates not allowed"):
        form.write({"a": "\ud800"}, tmp_path / "v.json")


def test_a_record_with_an_object_that_it_makes_again_the_same_arrives():
    back = loads(dumps(Fitted(2), Fitted), Fitted)
    assert (back.count, back.estimate.bins) == (2, [0, 0])


def test_a_record_array_travels_as_its_refusal_says(tmp_path):
    value = np.array([(1, 2.0)], [("a", int), ("b", float)]).view(np.recarray)
    plain = value.view(value.dtype.fields, np.ndarray)
    format_of(np.ndarray).write(plain, tmp_path / "a.npy")
    assert type(format_of(np.ndarray).read(tmp_path / "a.npy")[0]) is type(plain[0]) is np.void
