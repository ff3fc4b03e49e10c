"""Values as Go writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus_manifest import gotext


@pytest.mark.parametrize(
    ("number", "json", "shown", "parameter"),
    [
        (1.0, "1", "1", "1"),
        (1.5, "1.5", "1.5", "1.5"),
        (0.000001, "0.000001", "1e-06", "0.000001"),
        (0.0000015, "0.0000015", "1.5e-06", "0.0000015"),
        (0.00000015, "1.5e-7", "1.5e-07", "0.00000015"),
        (0.0001, "0.0001", "0.0001", "0.0001"),
        (123456.0, "123456", "123456", "123456"),
        (1234567.0, "1234567", "1.234567e+06", "1234567"),
        (1e20, "100000000000000000000", "1e+20", "100000000000000000000"),
        (1e21, "1e+21", "1e+21", "1000000000000000000000"),
        (-2.5e-9, "-2.5e-9", "-2.5e-09", "-0.0000000025"),
        (0.1, "0.1", "0.1", "0.1"),
        (-0.0, "-0", "-0", "-0"),
    ],
)
def test_floats_are_written_as_json_as_fmt_and_as_parameters(number, json, shown, parameter):
    assert gotext.json_text(number) == json
    assert gotext.display(number) == shown
    assert gotext.parameter_text(number) == parameter


def test_parameters_are_texts_numbers_and_booleans():
    assert [gotext.parameter_text(value) for value in ("a", True, False, 5)] == ["a", "true", "false", "5"]
    assert gotext.parameter_text(2**53 + 1) == "9007199254740992"
    for value in (None, [], {}):
        with pytest.raises(ValueError, match="a parameter is"):
            gotext.parameter_text(value)


def test_json_is_compact_sorted_and_escaped_for_html():
    assert (
        gotext.json_text({"b": [1, None, True], "a": "<é&\u2028>"})
        == '{"a":"\\u003cé\\u0026\\u2028\\u003e","b":[1,null,true]}'
    )
    assert (
        gotext.json_text({"a": [1], "b": {}, "c": []}, indent="  ")
        == '{\n  "a": [\n    1\n  ],\n  "b": {},\n  "c": []\n}'
    )
    assert gotext.json_text("<", html=False) == '"<"'
    assert gotext.unescaped(gotext.json_text("a<b>&")) == '"a<b>&"'
    for value in (float("nan"), float("inf"), {1, 2}, gotext.AnyKeyed({1: 2})):
        with pytest.raises(ValueError, match="no JSON form"):
            gotext.json_text(value)


def test_values_are_written_as_go_prints_them():
    assert gotext.display({"b": 1, "a": [None, "x", True, 2.0]}) == "map[a:[<nil> x true 2] b:1]"
    assert gotext.display(float("nan")) == "NaN"
    assert gotext.display(float("-inf")) == "-Inf"
    assert gotext.go_quoted('a"\n\x01\x7f\u200b\\é') == '"a\\"\\n\\x01\\x7f\\u200b\\\\é"'


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_written_in_any_way_is_the_same_float(number):
    assert float(gotext.json_text(number)) == number
    assert float(gotext.display(number)) == number
    assert float(gotext.parameter_text(number)) == number
