"""Fan-outs: items and aggregates in the forms that Argo gives them."""

import pytest

from periplus_cache.resolve import fanout
from periplus_common.errors import Invalid
from periplus_model.steps import Outputs


def test_tags_of_an_item_are_its_text_and_those_of_its_members():
    scopes, items = fanout.scopes('["a", 1, 1.0, true, {"k": "v", "n": 1e3}, ["x", 2]]')
    assert scopes == [
        {"item": "a"},
        {"item": "1"},
        {"item": "1.0"},
        {"item": "true"},
        {"item.k": "v", "item.n": "1e3", "item": '{"k":"v","n":1e3}'},
        {"item": '["x",2]'},
    ]
    assert items == '["a",1,1.0,true,{"k":"v","n":1e3},["x",2]]'


@pytest.mark.parametrize("text", ["", "{}", "1", '"a"', "[1", "[NaN]", "a", "[" * 100_000])
def test_a_text_that_is_no_list_is_refused(text):
    with pytest.raises(Invalid):
        fanout.scopes(text)


def joined(*values: str) -> str | None:
    return fanout.joined([Outputs({"p": value}) for value in values]).parameters["p"]


def results(*values: str) -> str | None:
    return fanout.joined([Outputs(result=value) for value in values]).result


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (['{"x": 1.0}', "str", "5", "null", " 7 "], r'["{\"x\": 1.0}","str","5","null"," 7 "]'),
        (["1", "2"], '["1","2"]'),
        (["[1]", "2"], '["[1]","2"]'),
        (['{"b": 1.0, "a": "<"}', "[ 1, 2 ]"], r'[{"a":"\u003c","b":1},[1,2]]'),
        (["[NaN]"], '["[NaN]"]'),
        (["<&\u2028>"], r'["\u003c\u0026\u2028\u003e"]'),
        (["[" * 5000 + "]" * 5000], '["' + "[" * 5000 + "]" * 5000 + '"]'),
        ([""], '[""]'),
    ],
)
def test_parameters_are_joined_as_argo_joins_them(values, expected):
    assert joined(*values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1.50", "text", '{ "b" : 1, "a" : "< x" }'], r'[1.50,"text",{"b":1,"a":"\u003c x"}]'),
        ([r'"a \" b"', "NaN", ""], r'["a \" b","NaN",""]'),
        (["[" * 5000 + "]" * 5000], '["' + "[" * 5000 + "]" * 5000 + '"]'),
    ],
)
def test_results_are_joined_with_their_own_text(values, expected):
    assert results(*values) == expected


def test_an_item_without_an_output_is_left_out_of_its_array():
    found = fanout.joined([Outputs({"p": "1", "q": "2"}), Outputs({"p": "3"}, result="4")])
    assert (found.parameters["p"], found.parameters["q"], found.result) == ('["1","3"]', '["2"]', "[4]")


def test_without_results_there_is_no_joined_result():
    assert fanout.joined([Outputs({"p": "1"})]).result is None
