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
    ours = next(regex.compile(pattern).find_all(text, lambda _: None), None)
    theirs = re.search(pattern.replace("$", r"\Z"), text, re.ASCII)
    assert (ours is None) is (theirs is None)
    if ours is not None and theirs is not None:
        assert ours[:2] == theirs.span()


@pytest.mark.parametrize(
    "pattern", ["(a*)*b", "(a+)+$b", "(a|aa)+$b", "(a|a)*b", "((a*)*)*b", "(?:a?){20}a{20}b"]
)
def test_the_steps_of_a_search_are_linear_in_the_text(pattern):
    compiled = regex.compile(pattern)
    for size in (200, 400, 800):
        assert compiled.search("a" * size, budget(150 * size)) is False


@pytest.mark.parametrize(
    "pattern",
    [
        "((?:){1000}){1000}",
        "(((a{50}){50}){50}){50}",
        "(" * 500,
        "a{1001}",
        "a" * 4097,
        r"(?:\p{L}{1000}){1}" * 10,
    ],
)
def test_patterns_that_would_grow_too_large_are_refused(pattern):
    with pytest.raises(ManifestError, match="error parsing regexp"):
        regex.compile(pattern)


@pytest.mark.parametrize("pattern", ["(?:){1000}" * 30, "(?:" * 500 + ")" * 500, "|" * 3900 + "a" * 97])
def test_patterns_that_only_look_large_are_compiled_as_by_go_and_cost_no_more_than_their_text(pattern):
    assert regex.compile(pattern).search("b" * 1000, budget(1001)) is True


def test_a_large_pattern_costs_more_steps_for_each_character():
    with pytest.raises(Spent):
        regex.compile(r"(?:\p{L}\d){20}x").search("a" * 10_000, budget(500_000))
    assert regex.compile(r"(?:\p{L}\d){20}x").search("a1" * 20 + "x", budget(5_000)) is True


def test_matches_that_each_look_at_the_whole_text_end_after_some_time():
    slow = regex.Regex("a.*b|a", max_seconds=0.05)
    with pytest.raises(ManifestError, match=r"longer than 0\.05 seconds"):
        list(slow.find_all("a" * 300_000, lambda _: None))


@pytest.mark.parametrize(
    ("pattern", "text", "spans"),
    [
        ("é", "aéb é", [(1, 2), (4, 5)]),
        ("(b)?(é)", "𝄞éaé", [(1, 2, -1, -1, 1, 2), (3, 4, -1, -1, 3, 4)]),
        ("", "é𝄞", [(0, 0), (1, 1), (2, 2)]),
        ("x*", "éxx𝄞", [(0, 0), (1, 3), (4, 4)]),
        (r"\p{Greek}+", "aΩωb", [(1, 3)]),
        ("(?i)ΣΊΣΥΦΟΣ", "σίσυφος", [(0, 7)]),
        (".", "a\ud800b", [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_matches_are_counted_in_characters(pattern, text, spans):
    assert list(regex.compile(pattern).find_all(text, lambda _: None)) == spans


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "missing closing ): `(`"),
        ("[a", "missing closing ]: `[a`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        (r"a\\\C", r"invalid escape sequence: `\C`"),
        (r"[b-a]", "invalid character class range: `b-a`"),
    ],
)
def test_a_bad_pattern_is_refused_in_gos_words(pattern, message):
    with pytest.raises(ManifestError) as caught:
        regex.compile(pattern)
    assert caught.value.message == f"error parsing regexp: {message}"


@pytest.mark.parametrize("pattern", [r"\\C", r"\Q\C\E", r"\Qa\C"])
def test_a_c_behind_a_backslash_that_is_itself_escaped_is_text(pattern):
    assert regex.compile(pattern).search(
        pattern.removeprefix(r"\Q").removesuffix(r"\E").replace(r"\\", "\\"), budget(100)
    )


def test_empty_alternatives_count_as_steps():
    with pytest.raises(Spent):
        regex.compile("(?:" + "|" * 1000 + ")" + "b").search("a" * 100_000, budget(100_000))


@given(st.text(alphabet="ab()[]{}|*+?^$.\\dwpLPQE-,12:<>i", max_size=16))
def test_any_pattern_compiles_or_is_refused(pattern):
    try:
        compiled = regex.compile(pattern)
    except ManifestError:
        return
    compiled.search("aab12", budget(100_000))
