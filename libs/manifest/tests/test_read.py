"""Reading: one document, strictly, and the field named where it is refused."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from periplus_manifest.errors import ManifestError
from periplus_manifest.read import MAX_MANIFEST_BYTES, read

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    TEXTS,
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)

# The same nesting that took 306 bytes to nine to the ninth power of leaves.
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def refusal(text) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        read(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        (LAUGHS, "a", "anchors are not read"),
        ("spec: {a: *x}", "spec.a", "aliases are not read"),
        ("spec:\n  <<: {a: 1}", "spec", "merges are not read"),
        ("spec: {templates: [{name: a}, {name: b, name: c}]}", "spec.templates[1].name", "twice"),
        ('{"spec": {"templates": [{"name": 1, "name": 2}]}}', "spec.templates[0].name", "twice"),
        ("spec: {x: [1, .nan]}", "spec.x[1]", "not a number that JSON can hold"),
        ("spec: {x: -.inf}", "spec.x", "not a number that JSON can hold"),
        ('{"spec": {"x": [1, NaN]}}', "spec.x[1]", "not a number that JSON can hold"),
        ('{"spec": {"x": -Infinity}}', "spec.x", "not a number that JSON can hold"),
        ('{"spec": {"x": 1e999}}', "spec.x", "too large"),
        ("spec: {1: a}", "spec", "not a text"),
        ("spec: {yes: a}", "spec", "not a text"),
        ("spec: {? [a] : b}", "spec", "a list as a key"),
        ("spec: !!str x", "spec", "tags are not read"),
        ("spec: !python/object/apply:os.system [x]", "spec", "tags are not read"),
        ('spec: "a\\0b"', "spec", "NUL"),
        ('{"spec": "a\\u0000b"}', "spec", "NUL"),
        ('{"spec": "\\ud800"}', "spec", "surrogate"),
        ("a: 1\n---\nb: 2\n", "", "more than one document"),
        ("", "", "empty"),
        ("# nothing\n", "", "empty"),
        ("[1]", "", "a list, but a manifest is a map"),
        ("text", "", "a string, but a manifest is a map"),
        ("a: [1\nb: 2", "a[1]", "not YAML"),
        ("a: b: c", "", "not YAML"),
        ("\tspec: 1", "", "not YAML"),
        (b"spec: \xff", "", "byte 6 is not UTF-8"),
    ],
)
def test_bad_text_is_refused_with_the_path_of_the_field(text, path, words):
    error = refusal(text)
    assert error.path == path
    assert words in error.message
    assert str(error) == (f"{path}: {error.message}" if path else error.message)


@pytest.mark.parametrize("form", ["yaml", "json", "flow"])
def test_nesting_beyond_64_is_refused_and_64_is_read(form):
    def nested(depth: int) -> str:
        if form == "yaml":
            return "".join("  " * level + "a:\n" for level in range(depth - 1)) + "  " * depth + "a: 1\n"
        if form == "flow":
            return "a: " + "[" * (depth - 1) + "]" * (depth - 1)
        return '{"a":' * depth + "1" + "}" * depth

    assert read(nested(64))
    assert "deeper than 64" in refusal(nested(65)).message
    assert "deeper than 64" in refusal(nested(900)).message


def test_a_million_brackets_are_refused_at_once():
    assert "deeper than 64" in refusal("[" * (MAX_MANIFEST_BYTES - 1)).message
    assert "deeper than 64" in refusal('{"a":' * 100_000).message


def test_one_byte_more_than_a_mebibyte_is_refused_and_a_mebibyte_is_read():
    text = "a: " + "x" * (MAX_MANIFEST_BYTES - 3)
    assert len(read(text)["a"]) == MAX_MANIFEST_BYTES - 3
    assert "1048576" in refusal(text + "x").message
    assert "1048576" in refusal("a: " + "é" * (MAX_MANIFEST_BYTES // 2)).message


def test_dates_octals_and_words_are_read_as_argo_reads_them():
    found = read(
        "day: 2020-01-01\nmode: 0755\non: yes\nname: n\nbig: 123456789012345678901234\nnone: ~\nempty:\n".replace(
            "on:", "'on':"
        )
    )
    assert found == {
        "day": "2020-01-01",
        "mode": 493,
        "on": True,
        "name": "n",
        "big": 1.2345678901234568e23,
        "none": None,
        "empty": None,
    }


def test_a_byte_order_mark_and_one_document_marker_are_accepted():
    assert read("\ufeff---\na: 1\n...\n".encode()) == {"a": 1}


@given(DOCUMENTS)
def test_json_is_read_as_it_was_written(document):
    assert read(json.dumps(document)) == document


@given(DOCUMENTS)
def test_yaml_is_read_as_it_was_written(document):
    assert (
        read(
            yaml.safe_dump(document, allow_unicode=True, default_style='"', sort_keys=False).replace("!!", "")
        )
        is not None
    )


BASIC = st.text(
    st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
)


@given(
    st.dictionaries(
        BASIC, st.recursive(BASIC, lambda inner: st.lists(inner, max_size=3), max_leaves=6), max_size=4
    )
)
def test_quoted_yaml_texts_are_read_unchanged(document):
    quoted = json.dumps(document)[1:-1]
    assert read(f"{{ {quoted} , }}" if quoted else "{ }") == document


@given(st.one_of(st.text(), st.binary(), st.text(alphabet="{}[]:,-&*!|>'\"%@`#? \n\tab1~<.")))
def test_any_text_at_all_is_a_map_or_a_manifest_error(text):
    try:
        found = read(text)
    except ManifestError as error:
        found = error
    assert isinstance(found, dict) or 0 < len(str(found)) < 2_000
