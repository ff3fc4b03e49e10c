"""Regular expressions: the matches that Go finds, in time that the text alone decides."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periplus_manifest import regex
from periplus_manifest.errors import ManifestError


class Spent(Exception):
    pass


def budget(most: int):
    left = [most]

    def spend(steps: int) -> None:
        left[0] -= steps
        if left[0] < 0:
            raise Spent

    return spend


ATOMS = st.sampled_from(
    ["a", "b", "ab", "[ab]", "[^a]", ".", r"\d", r"\w", r"\b", "^", "$", "x", "(?:ab)", "c?"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map(lambda part: f"({part})"),
        st.tuples(
            st.sampled_from(["a", "b", "[ab]", "(ab)", "(?:a|b)", "."]),
            st.sampled_from(["*", "+", "?", "*?", "+?", "{2}", "{1,2}"]),
        ).map("".join),
    ),
    max_leaves=5,
)


@settings(max_examples=200)
@given(PATTERNS, st.text(alphabet="aabbc1 x", max_size=8))
def test_the_first_match_is_pythons_where_both_languages_mean_the_same(pattern, text):
    ours = regex.compile(pattern).find(text, 0, lambda _: None)
    theirs = re.search(pattern.replace("$", r"\Z"), text, re.ASCII)
    assert (ours is None) is (theirs is None)
    if ours is not None and theirs is not None:
        assert ours[:2] == theirs.span()


@pytest.mark.parametrize(
    "pattern", ["(a*)*b", "(a+)+$b", "(a|aa)+$b", "(a|a)*b", "((a*)*)*b", "(?:a?){20}a{20}b"]
)
def test_steps_grow_with_the_text_and_not_with_what_might_match(pattern):
    compiled = regex.compile(pattern)
    for size in (200, 400, 800):
        assert compiled.search("a" * size, budget(150 * size)) is False


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:){1000}" * 30,
        "((?:){1000}){1000}",
        "(((a{50}){50}){50}){50}",
        "(" * 500,
        "(?:" * 500 + ")" * 500,
        "a{1001}",
        "|" * 4000 + "a" * 97,
    ],
)
def test_patterns_that_would_grow_too_large_are_refused(pattern):
    with pytest.raises(ManifestError, match="error parsing regexp"):
        regex.compile(pattern)


def test_many_empty_ways_are_counted():
    with pytest.raises(Spent):
        regex.compile("(?:" + "|" * 1000 + ")" + "b").search("a" * 100_000, budget(100_000))


@given(st.text(alphabet="ab()[]{}|*+?^$.\\dwpLPQE-,12:<>i", max_size=16))
def test_any_pattern_compiles_or_is_refused(pattern):
    try:
        compiled = regex.compile(pattern)
    except ManifestError:
        return
    compiled.search("aab12", budget(100_000))
