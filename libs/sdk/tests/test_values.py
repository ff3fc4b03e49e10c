"""Values are written as JSON and read back, in texts that neither Argo nor Kubernetes changes."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NewType, NotRequired, TypedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periplus.sdk.errors import MismatchError
from periplus.sdk.values.parameters import dumps, dumps_items, loads, loads_gathered, parse
from periplus.sdk.values.schema import is_changed_as_item, is_incompatible, is_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_any_json_value_is_read_back_unchanged(value: Any):
    text = dumps({"v": value}, dict[str, Any])
    assert loads(text, dict[str, Any]) == {"v": value}
    assert "$" not in text
    assert "{{" not in text


@pytest.mark.parametrize("text", ["{{x}}", "{{{{", "{{{", "a{{=b}}", "$(A)", "$$", "\\{{", "$", "it's"])
def test_what_argo_or_kubernetes_would_replace_is_escaped(text):
    for value, annotation in ((text, str), ({text: [text]}, dict[str, list[str]])):
        written = dumps(value, annotation)
        assert "{{" not in written
        assert "$" not in written
        assert "'" not in written or annotation is not str
        assert loads(written, annotation) == value


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_read_back_exactly_and_mostly_have_no_exponent(value: float):
    text = dumps(value, float)
    assert math.copysign(1, loads(text, float)) == math.copysign(1, value)
    assert loads(text, float) == value
    assert "e" not in text or not 1e-30 < abs(value) < 1e30


def test_small_floats_are_written_so_that_a_condition_can_read_them():
    assert [dumps(one, float) for one in (1e-05, 2.5e-7, 1e16, 0.1)] == [
        "0.00001",
        "0.00000025",
        "10000000000000000.0",
        "0.1",
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_the_items_of_a_list_are_the_json_of_each(values: list[str]):
    items = json.loads(dumps_items(values, list[str]))
    assert [loads(one, str) for one in items] == values
    # Argo gathers the texts that the steps wrote, as a list of strings.
    assert loads_gathered(json.dumps(items), list[str]) == values


class Pair(NamedTuple):
    left: int
    right: float = 0.5


@dataclass(frozen=True)
class Node:
    name: str
    children: "list[Node]"
    mark: Literal["a", "b"] | None = None


class Row(TypedDict):
    id: int
    note: NotRequired[str]


Age = NewType("Age", int)


@pytest.mark.parametrize(
    ("value", "annotation", "text"),
    [
        (None, None, "null"),
        (3, int | None, "3"),
        (None, int | None, "null"),
        (3, float | int, "3"),
        (3, float, "3.0"),
        (True, bool, "true"),
        (Pair(1), Pair, '{"left":1,"right":0.5}'),
        ([Pair(1, 2)], list[Pair], '[{"left":1,"right":2.0}]'),
        (
            Node("a", [Node("b", [], "b")]),
            Node,
            '{"children":[{"children":[],"mark":"b","name":"b"}],"mark":null,"name":"a"}',
        ),
        ({"id": 1}, Row, '{"id":1}'),
        ((1, "a"), tuple[int, str], '[1,"a"]'),
        ((1, 2, 3), tuple[int, ...], "[1,2,3]"),
        ({"a": [1]}, dict[str, list[int]], '{"a":[1]}'),
        (Age(5), Age, "5"),
        ("x", int | str, '"x"'),
        ([1, "a", None], list, '[1,"a",null]'),
    ],
)
def test_a_value_is_written_as_its_text_and_read_back_from_it(value, annotation, text):
    assert is_json(annotation)
    assert dumps(value, annotation) == text
    assert loads(text, annotation) == value
    assert type(loads(text, annotation)) is type(value) or annotation is float


@pytest.mark.parametrize(
    ("value", "annotation", "text"),
    [
        (np.int64(3), int, "3"),
        (np.float32(0.5), float, "0.5"),
        (np.bool_(True), bool, "true"),
        (np.float64(1), float, "1.0"),
    ],
)
def test_numbers_of_numpy_are_accepted_as_pythons(value, annotation, text):
    assert dumps(value, annotation) == text


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (float("inf"), float, "is inf, which JSON cannot say"),
        ({"a": float("nan")}, dict[str, float], "a: is nan"),
        (True, int, "expected int, got True"),
        (1, bool, "expected bool, got 1"),
        (1.0, int, "expected int, got 1.0"),
        ({1: 2}, dict, "keys of a JSON object are str"),
        ({"a": {1}}, dict, "a: is set, which JSON cannot say"),
        ([1, [2, "x"]], list[Any], None),
        ([[1], ["x"]], list[list[int]], r"[1][0]: expected int"),
        ("c", Literal["a", "b"], "expected Literal['a', 'b'], got 'c'"),
        ({"note": "x"}, Row, "lacks id (of Row)"),
        ({"id": 1, "more": 2}, Row, "has no field more"),
        ((1,), tuple[int, int], "has 1 elements"),
        ((1, 2), Pair, "expected Pair, got (1, 2)"),
        ("\ud800", str, "cannot be written as JSON"),
        ("x" * 100_000, str, "a parameter holds at most"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_path(value, annotation, message):
    if message is None:
        assert dumps(value, annotation)
        return
    with pytest.raises(MismatchError) as refused:
        dumps(value, annotation)
    assert message in str(refused.value)


def test_deeply_nested_text_is_refused_without_a_crash():
    with pytest.raises(MismatchError):
        loads("[" * 100_000 + "]" * 100_000, list)


def test_bare_text_is_accepted_where_a_str_is_declared():
    assert parse("plain", str) == "plain"
    assert parse("plain", str | None) == "plain"
    assert parse("null", str | None) is None
    assert parse("a", Literal["a"]) == "a"
    for text, annotation in [("plain", int), ("c", Literal["a"]), ("[1", list[int])]:
        with pytest.raises(MismatchError):
            parse(text, annotation)


def test_text_that_is_no_json_is_named_as_such_where_a_dict_or_list_is_declared():
    for text, annotation in [("{1:2}", dict[str, Any]), ("[a]", list[str])]:
        with pytest.raises(MismatchError, match="is not JSON"):
            parse(text, annotation)


def test_items_are_written_only_where_argo_would_change_the_value():
    lost = (str, int | None, Any, Literal["a"], None)
    # Argo writes an object anew with its keys sorted: a dict's order is part of its value, a record's is not.
    sorted_by_argo = (Row, dict, dict[str, float])
    assert [is_changed_as_item(one) for one in (*lost, *sorted_by_argo)] == [True] * 8
    assert [
        is_changed_as_item(one) for one in (int, float, bool, Pair, Node, list[str], tuple[int, ...])
    ] == [False] * 7


@dataclass
class Other:
    left: int
    right: float = 0.5


class Point(NamedTuple):
    x: int


@dataclass
class Holder:
    name: str
    weights: dict[str, float]


def test_items_are_written_where_a_dict_is_inside_whose_keys_argo_would_sort():
    holding = (
        Holder,
        list[Holder],
        list[dict[str, int]],
        tuple[Row, int],
        list[Any],
        list[list],
        Holder | None,
    )
    assert [is_changed_as_item(one) for one in holding] == [True] * len(holding)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (Pair, Other),
        (dict[str, Any], Pair),
        (Pair, dict[str, Any]),
        (Pair, Row),
        (list[int], tuple[int, ...]),
        (tuple[int, int], list[int]),
        (Point, list[int]),
        (list[Pair], list[Other]),
        (dict[str, Pair], dict[str, Other]),
        (tuple[Pair, int], tuple[Other, int]),
        (Pair | None, Other | None),
        (Pair | Other, Pair),
        (list[int] | tuple[int, ...], list[int]),
        (float, int),
        (None, int),
    ],
)
def test_a_value_that_would_arrive_as_another_type_is_incompatible(source, target):
    assert is_incompatible(source, target)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (Pair, Pair),
        (Pair, Pair | Other),
        (Pair | None, Pair),
        (int, float),
        (int, float | None),
        (list[int], list[float]),
        (Row, dict[str, Any]),
        (dict[str, int], Row),
        (Any, Pair),
        (dict[str, Any], dict[str, Pair]),
        (list, list[int]),
        (str, Literal["a"]),
        (int | str, str),
        (tuple[int, int], tuple[int, ...]),
    ],
)
def test_a_value_that_may_arrive_as_it_was_is_compatible(source, target):
    assert not is_incompatible(source, target)
