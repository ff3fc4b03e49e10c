"""Conditions: bounded, and never anything but true, false or a ConditionError."""

import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periplus_manifest import condition
from periplus_manifest.errors import ConditionError, ManifestError


def outcome(call):
    """Give what a call returns, or the error that it is refused with; any other error fails the test."""
    try:
        return call()
    except ManifestError as error:
        return error


def test_an_empty_condition_is_true():
    assert condition.evaluate("") is True


@pytest.mark.parametrize("text", [" ", "heads", "1", "'a'", "1 + 1", "(a, b)", "true ? 1 : 2"])
def test_what_is_neither_true_nor_false_is_refused(text):
    with pytest.raises(ConditionError):
        condition.evaluate(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.b == c", "quotes"),
        ("a = b", "invalid token: '='"),
        ("(true", "parenthesis"),
        ("true &&", "end"),
        ("'a", "unclosed"),
        ("my-name == x", "not a number"),
    ],
)
def test_the_error_says_what_to_do(text, words):
    with pytest.raises(ConditionError, match=words):
        condition.evaluate(text)


def test_a_long_text_in_quotes_is_compared():
    assert condition.evaluate(f"'{'x' * 300_000}' == '{'x' * 300_000}'") is True


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        f"'{'a' * 200_000}' =~ '(a|bb|ccc){{400}}x'",
        " || ".join(f"'{'a' * 9_000}{n}' =~ '(a|bb|ccc){{200}}x'" for n in range(90)),
        "(" * 100_000 + "true" + ")" * 100_000,
        "!" + "(!" * 50_000 + "true" + ")" * 50_000,
        "x" * (1 << 20) + "x",
    ],
)
def test_a_condition_above_the_limits_is_refused(text):
    with pytest.raises(ConditionError):
        condition.evaluate(text)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text",
    [
        f"'{'a' * 100_000}' =~ '(a*)*(a*)*b'",
        " || ".join(f"'{'a' * 9_000}{n}' =~ '(a|aa)+$b'" for n in range(90)),
    ],
)
def test_a_regular_expression_that_defeats_backtracking_is_decided(text):
    assert condition.evaluate(text) is False


def test_more_than_50_000_tokens_are_refused():
    with pytest.raises(ConditionError, match="more than 50000 tokens"):
        condition.evaluate(" && ".join(["true"] * 30_000))


def test_long_chains_do_not_count_as_nesting():
    assert condition.evaluate(" && ".join(["1 == 1"] * 5000)) is True
    assert condition.evaluate("0" + " + 1" * 5000 + " == 5000") is True


WORDS = st.sampled_from(
    [
        "a",
        "b",
        "1",
        "2.5",
        "'a'",
        '"b c"',
        "true",
        "false",
        "(",
        ")",
        "==",
        "!=",
        "<",
        ">=",
        "&&",
        "||",
        "!",
        "-",
        "+",
        "in",
        ",",
        "=~",
        "?",
        ":",
        "??",
        "[x]",
        "x.Y",
        "'2020-01-01'",
        "\\",
        "{{x}}",
    ]
)


@settings(max_examples=250)
@given(st.lists(WORDS, max_size=12), st.sampled_from([" ", ""]))
def test_any_sequence_of_words_is_decided_or_refused(words, glue):
    assert isinstance(outcome(lambda: condition.evaluate(glue.join(words))), (bool, ConditionError))


@given(st.text(max_size=30))
def test_any_text_is_decided_or_refused(text):
    assert isinstance(outcome(lambda: condition.evaluate(text)), (bool, ConditionError))


SIGNS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@given(st.integers(-99, 99), st.sampled_from(sorted(SIGNS)), st.integers(-99, 99))
def test_numbers_compare_as_numbers(left, sign, right):
    assert condition.evaluate(f"{left} {sign} {right}") is SIGNS[sign](left, right)


@given(
    st.text(alphabet="abcXYZ \n<>&|=(){}%", max_size=8), st.text(alphabet="abcXYZ \n<>&|=(){}%", max_size=8)
)
def test_quoted_texts_compare_as_texts(left, right):
    assert condition.evaluate(f"'{left}' == \"{right}\"") is (left == right)
    assert condition.evaluate(f"'{left}' < '{right}'") is (left < right)
