"""Loops: the items of a call, and what its iterations are called."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus_manifest import loops
from periplus_manifest.errors import ManifestError
from periplus_manifest.read import read

ITEMS = st.recursive(
    st.one_of(st.text(max_size=6), st.booleans(), st.integers(-99, 99)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("call", [{}, {"withItems": []}, {"withParam": ""}, {"withItems": None}])
def test_a_call_without_items_has_no_loop(call):
    assert loops.items(call, lambda _: None) is None


def test_items_params_and_sequences_are_expanded():
    assert loops.items({"withItems": [1, "{{x}}"]}, {"x": "X"}.get) == [1, "X"]
    assert loops.items({"withParam": "{{x}}"}, {"x": '[1, {"a": 2}]'}.get) == [1, {"a": 2}]
    assert loops.items({"withParam": "{{=toJson(filter([1, 3], # > 1))}}"}, lambda _: None, {}) == [3]
    assert loops.items({"withParam": "[]"}) == []
    assert loops.items({"withParam": "null"}) == []
    assert loops.items({"withSequence": {"start": "3", "end": "5", "format": "n%02d"}}) == [
        "n03",
        "n04",
        "n05",
    ]
    assert loops.items({"withSequence": {"count": 2}}) == ["0", "1"]
    assert loops.items({"withSequence": {"count": "{{n}}", "start": 4}}, {"n": "2"}.get) == ["4", "5"]
    assert loops.items({"withSequence": {"start": 2, "end": "0"}}) == ["2", "1", "0"]
    assert loops.items({"withSequence": {"count": 0}}) == []


@pytest.mark.parametrize(
    ("call", "path"),
    [
        ({"withItems": [1], "withParam": "[]"}, "withParam"),
        ({"withItems": "{{x}}"}, "withItems"),
        ({"withParam": "no"}, "withParam"),
        ({"withParam": "{}"}, "withParam"),
        ({"withParam": "[NaN]"}, "withParam"),
        ({"withParam": "[" * 100_000}, "withParam"),
        ({"withParam": "[" * 65 + "]" * 65}, "withParam"),
        ({"withParam": "[" * 900 + "]" * 900}, "withParam"),
        ({"withParam": "{{nope}}"}, "withParam"),
        ({"withParam": 3}, "withParam"),
        ({"withSequence": {}}, "withSequence"),
        ({"withSequence": {"start": 1}}, "withSequence"),
        ({"withSequence": {"count": 1, "end": 1}}, "withSequence"),
        ({"withSequence": {"count": "x"}}, "withSequence.count"),
        ({"withSequence": {"count": 10**9}}, "withSequence"),
        ({"withSequence": {"start": "0", "end": "9" * 18}}, "withSequence"),
        ({"withSequence": {"count": 1, "format": "%s"}}, "withSequence.format"),
        ({"withSequence": {"count": 1, "format": "none"}}, "withSequence.format"),
        ({"withSequence": {"count": 1, "format": "%999999d"}}, "withSequence.format"),
        ({"withSequence": {"count": 1, "format": '%d"'}}, "withSequence.format"),
        ({"withSequence": [1]}, "withSequence"),
    ],
)
def test_a_loop_that_cannot_be_expanded_names_its_field(call, path):
    with pytest.raises(ManifestError) as caught:
        loops.items(call, lambda _: None)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("form", "number", "text"),
    [("%d", 5, "5"), ("%03d", 5, "005"), ("%03d", -5, "-05"), ("%+d", 5, "+5"), ("%-4d|", 5, "5   |"), ("%4d", 5, "   5"),
     ("%x", 255, "ff"), ("%#X", 255, "0XFF"), ("%o", 8, "10"), ("%b", 5, "101"), ("%.3d", 5, "005"), ("100%%-%d", 5, "100%-5")],
)  # fmt: skip
def test_a_sequence_is_formatted_as_go_formats(form, number, text):
    assert loops.formatted(form, number) == text


@pytest.mark.parametrize(
    ("item", "name", "scope"),
    [
        ("one", "t(0:one)", {"item": "one"}),
        (2, "t(0:2)", {"item": "2"}),
        (True, "t(0:true)", {"item": "true"}),
        (1.5, "t(0:1.5)", {"item": "1.5"}),
        (1.0, "t(0:1)", {"item": "1"}),
        (None, "t(0:[])", {"item": "null"}),
        ({"k": "a", "b": 1}, "t(0:b:1,k:a)", {"item": '{"b":1,"k":"a"}', "item.k": "a", "item.b": "1"}),
        ({"x": {"y": [1]}}, 't(0:x:{"y":[1]})', {"item": '{"x":{"y":[1]}}', "item.x": '{"y":[1]}'}),
        (["a", 1], "t(0:[a 1])", {"item": '["a",1]'}),
        ("f(x)", "t(0:fx)", {"item": "f(x)"}),
        ('a"b', 't(0:a\\"b)', {"item": 'a"b'}),
        ({"q": 'a"b'}, 't(0:q:a\\"b)', {"item": '{"q":"a\\"b"}', "item.q": 'a\\"b'}),
        ("a<b", "t(0:a<b)", {"item": "a<b"}),
    ],
)
def test_an_iteration_has_the_node_name_and_variables_of_argo(item, name, scope):
    assert loops.item_name("t", 0, item) == name
    assert loops.item_scope(item) == scope


def test_a_number_of_a_parameter_is_written_as_in_its_source():
    (item, big) = loops.items({"withParam": "[1.0, 1e3]"}) or []
    assert (loops.item_scope(item), loops.item_name("t", 1, big)) == ({"item": "1.0"}, "t(1:1e3)")
    assert loops.item_scope((loops.items({"withParam": '[{"x": 1.0}]'}) or [])[0])["item"] == '{"x":1.0}'
    assert loops.item_scope(read("a: [1.0]")["a"][0]) == {"item": "1"}


@given(st.lists(ITEMS, max_size=4))
def test_a_list_as_parameter_gives_its_items(items):
    assert loops.items({"withParam": json.dumps(items)}) == items
    for index, item in enumerate(items):
        assert loops.item_name("t", index, item).startswith(f"t({index}:")
        assert "(" not in loops.item_name("t", index, item)[2:]
        assert all(isinstance(text, str) for text in loops.item_scope(item).values())
