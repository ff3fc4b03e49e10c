"""Fan-outs: items and aggregates in the forms that Argo gives them."""

import pytest

from periplus_cache import fanout
from periplus_cache.domain import Outputs
from periplus_common.errors import Invalid


def test_an_item_stands_for_its_text_and_each_member_for_its_own():
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
def test_what_is_no_list_is_refused(text):
    with pytest.raises(Invalid):
        fanout.scopes(text)


def test_parameters_are_joined_as_texts_and_results_as_values():
    joined = fanout.joined(
        [
            Outputs((("p", '{"x": 1.0}'), ("q", "1")), result="1.50"),
            Outputs((("p", "str"),), result="text"),
            Outputs((("p", " 7 "),), result='{"b":1,"a":"<"}'),
            Outputs((("p", "null"),)),
        ]
    )
    assert joined.parameter("p") == r'["{\"x\": 1.0}","str"," 7 ","null"]'
    assert joined.parameter("q") == '["1"]'
    assert joined.result == r'[1.50,"text",{"a":"\u003c","b":1}]'


def test_without_results_there_is_none():
    assert fanout.joined([Outputs((("p", "1"),))]).result is None
