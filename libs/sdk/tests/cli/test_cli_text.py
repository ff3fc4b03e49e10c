"""Text for terminals, and the configuration of the connection."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus.sdk.cli.text import display_width, duration_text, group_items, one_line, printable, table
from periplus.sdk.client import Connection, NotConnectedError, connection

FULL = {"dispatcher": "a:1", "cache": "b:2", "snapshotter": "c:3", "lineage": "d:4", "token": "t"}
STEERING = st.text(
    alphabet=st.sampled_from("\x1b[]\\0123;mHJ?\x07\x9b\x9d\x9c\x90abc \r\n\t\x00\u202e\u2066é漢")
)


@given(STEERING)
def test_printable_text_has_no_control_characters(text: str) -> None:
    assert not set(printable(text)) & set("\x1b\x9b\x9d\x90\x07\x00\r\u202e\u2066")
    assert printable(printable(text)) == printable(text)


@given(STEERING, st.integers(1, 40))
def test_one_line_is_no_wider_than_its_width(text: str, width: int) -> None:
    line = one_line(text, width)
    assert "\n" not in line
    assert display_width(line) <= width


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;title\x07text", "text"),
        ("a\x1bPq#0\x1b\\b", "ab"),
        ("\x1b(Bplain", "plain"),
        ("größe 漢字 👍", "größe 漢字 👍"),
    ],
)
def test_escape_sequences_are_removed_and_text_is_not(data: str, expected: str) -> None:
    assert printable(data) == expected


def test_the_columns_of_a_table_are_aligned_for_any_text() -> None:
    rows = [("漢字", "a"), ("ab\x1b[1mc", "b\nc")]
    assert table(("X", "Y"), rows) == ["X     Y", "漢字  a", "abc   b c"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (61, "1 min 1 s"), (7500, "2 h 5 min")],
)
def test_durations_are_printed_for_people(value: float, expected: str) -> None:
    assert duration_text(value) == expected


def test_nested_fan_outs_are_grouped_and_few_items_are_not() -> None:
    paths = ["a", *(f"b({i})" for i in range(3)), *(f"c({i}).d({j})" for i in range(4) for j in range(4))]
    groups = [(group.name, len(group.members)) for group in group_items(paths, lambda path: path)]
    assert groups == [("a", 1), ("b(0)", 1), ("b(1)", 1), ("b(2)", 1), ("c(*).d(*)", 16)]


def test_the_environment_overrides_the_file_and_an_option_overrides_both(tmp_path, in_held_home) -> None:
    settings = {**FULL, "project": "p", "later": "unknown", "cache": 7, "lock": "held"}
    environment = {"PERIPLUS_HOME": str(tmp_path), "PERIPLUS_CACHE": "x:9"}
    with in_held_home(tmp_path, json.dumps(settings)):
        assert connection(environment) == Connection(**{**FULL, "cache": "x:9"}, project="p")
        assert connection({**environment, "PERIPLUS_PROJECT": "q"}).project == "q"
        assert connection({**environment, "PERIPLUS_PROJECT": "q"}, project="r").project == "r"


def test_with_every_variable_set_no_file_is_read() -> None:
    environment = {f"PERIPLUS_{name.upper()}": value for name, value in FULL.items()}
    assert connection({**environment, "PERIPLUS_HOME": "/nowhere"}).project == "default"


@pytest.mark.parametrize(
    ("content", "expected", "missing"),
    [
        (None, "no stack was started here", True),
        ("{", "cannot be read", False),
        ("[]", "is not a JSON object", False),
        ("[" * 9000, "cannot be read", False),
        (json.dumps({"token": "t"}), "was not written by the stack that runs here", False),
        (json.dumps({"token": "t", "lock": "held"}), "has no cache, dispatcher, lineage, snapshotter", False),
    ],
)
def test_a_missing_or_unreadable_file_is_named(tmp_path, in_held_home, content, expected, missing) -> None:
    with in_held_home(tmp_path, content), pytest.raises(NotConnectedError, match=expected) as caught:
        connection({"PERIPLUS_HOME": str(tmp_path)})
    assert caught.value.missing is missing
    assert caught.value.where == str(tmp_path / "client.json")
    assert caught.value.fix
