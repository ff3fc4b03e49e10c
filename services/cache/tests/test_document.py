"""Template documents: what is refused."""

import json

import pytest

from periplus_cache import document
from periplus_cache.key import Scope, TemplateKey
from periplus_common.errors import Invalid


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "too large"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' twice"),
        ('{"a": 9223372036854775808}', "64 bits"),
        ('{"a": ' + "9" * 5000 + "}", "64 bits"),
        ('{"a": -9223372036854775809}', "64 bits"),
        ("[1]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"a": 1', "not JSON"),
        ("{'a': 1}", "not JSON"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested deeper"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper"),
        ('{"a":' + "[" * 200_000 + "]" * 200_000 + "}", "nested deeper"),
    ],
)
def test_a_document_without_one_meaning_is_refused(text: str, message: str):
    with pytest.raises(Invalid, match=message) as caught:
        document.parse(text)
    assert caught.value.reason == "DOCUMENT_INVALID"


def test_a_lone_surrogate_has_no_canonical_form():
    with pytest.raises(Invalid):
        TemplateKey(Scope("p"), r'{"a": "\ud800"}')


def test_the_maximal_depth_and_the_largest_integer_are_allowed():
    deep = '{"a":' * 64 + "1" + "}" * 64
    assert document.parse(deep)
    assert document.parse('{"a": 9223372036854775807}') == {"a": 9223372036854775807}


def test_numbers_keep_their_type():
    read = document.parse(json.dumps({"a": 1, "b": 1.0, "c": "1", "d": True}))
    assert [type(value) for value in read.values()] == [int, float, str, bool]
