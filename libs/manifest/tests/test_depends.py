"""`depends`: what a task waits for, and when that is so."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus_manifest import depends
from periplus_manifest.errors import ManifestError


def outcome(call):
    """Give what a call returns, or the error that it is refused with; any other error fails the test."""
    try:
        return call()
    except ManifestError as error:
        return error


def holds(text: str, **results: str) -> bool:
    return depends.parse(text).evaluate(
        {name.replace("_", "-"): set(given.split()) for name, given in results.items()}
    )


def test_a_task_without_a_result_means_succeeded_skipped_or_daemoned():
    assert [
        holds("a", a=result)
        for result in ("Succeeded", "Skipped", "Daemoned", "Failed", "Errored", "Omitted")
    ] == [True] * 3 + [False] * 3


def test_operators_have_the_precedence_of_go():
    assert holds("a || b && c", a="Succeeded")
    assert not holds("(a || b) && c", a="Succeeded")
    assert holds("!a.Succeeded && b.Failed", a="Failed", b="Failed")
    assert holds("!(a && b)", a="Succeeded", b="Failed")
    assert holds("a-b.AnySucceeded&&!c.AllFailed", a_b="Succeeded AnySucceeded", c="Failed")


def test_the_tasks_of_a_depends_are_listed():
    found = depends.parse("a && (b-2.Failed || !c.AllFailed)")
    assert found.tasks == {"a", "b-2", "c"}
    assert found.item_tasks == {"c"}


def test_dependencies_need_all_tasks_and_continue_on_accepts_more_results():
    found = depends.of({"dependencies": ["a", "b"]}, {"b": {"failed": True}})
    assert found is not None
    assert found.tasks == {"a", "b"}
    assert found.evaluate({"a": {"Succeeded"}, "b": {"Failed"}})
    assert not found.evaluate({"a": {"Failed"}, "b": {"Failed"}})
    assert depends.of({}) is None
    assert depends.of({"depends": ""}) is None


@pytest.mark.parametrize(
    "text",
    [
        "a &&",
        "&& a",
        "a b",
        "(a",
        "a)",
        "a.Nope",
        "a.failed",
        "a & b",
        "!",
        "",
        "()",
        "a and b.Nope",
        "a,b",
        "a.b.c",
        "'a'",
        "-a",
    ],
)
def test_a_bad_text_is_refused(text):
    with pytest.raises(ManifestError):
        depends.parse(text)


def test_an_error_has_the_path_of_its_field():
    with pytest.raises(ManifestError) as caught:
        depends.of({"depends": "a &&"})
    assert caught.value.path == "depends"


def test_deep_nesting_is_refused_and_long_chains_are_not():
    with pytest.raises(ManifestError, match="nested deeper"):
        depends.parse("(" * 5000 + "a" + ")" * 5000)
    with pytest.raises(ManifestError, match="nested deeper"):
        depends.parse("!" * 5000 + "a")
    assert len(depends.parse(" && ".join(f"t{n}" for n in range(5000))).tasks) == 5000


LOGIC = st.recursive(
    st.sampled_from(["a", "b.Failed", "c.Succeeded"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" && ", "||"]), inner).map(
            lambda parts: f"({parts[0]}{parts[1]}{parts[2]})"
        ),
        inner.map(lambda part: f"!({part})"),
    ),
    max_leaves=6,
)


@given(LOGIC)
def test_the_operators_agree_with_python(text):
    found = depends.parse(text)
    for a, b, c in itertools.product((True, False), repeat=3):
        results = {
            "a": {"Skipped"} if a else {"Failed"},
            "b": {"Failed"} if b else set(),
            "c": {"Succeeded"} if c else {"Omitted"},
        }
        stands = {"a": a, "b.Failed": b, "c.Succeeded": c}
        assert found.evaluate(results) is _truth(text, stands)


def _truth(text: str, stands: dict[str, bool]) -> bool:
    if text in stands:
        return stands[text]
    if text.startswith("!("):
        return not _truth(text[2:-1], stands)
    depth = 0
    for place, character in enumerate(text[1:-1], 1):
        depth += (character == "(") - (character == ")")
        if depth == 0 and text[place : place + 2] in ("&&", "||"):
            left, right = text[1:place].strip(), text[place + 2 : -1].strip()
            both = (_truth(left, stands), _truth(right, stands))
            return all(both) if text[place] == "&" else any(both)
    raise AssertionError(text)


@given(st.text(alphabet="ab.()!&| -FSAaildn"))
def test_any_text_is_parsed_or_refused(text):
    found = outcome(lambda: depends.parse(text).evaluate({"a": {"Succeeded"}}))
    assert isinstance(found, bool) or found.message
