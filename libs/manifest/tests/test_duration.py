"""Durations: what Go's time.ParseDuration reads, what Argo adds to it, and what Periplus' annotations do."""

from datetime import timedelta

import pytest

from periplus_manifest.duration import parse_argo_duration, parse_duration
from periplus_manifest.errors import ManifestError

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0", timedelta()),
        ("-0", timedelta()),
        ("0s", timedelta()),
        ("90s", timedelta(seconds=90)),
        ("1h30m", 1.5 * HOUR),
        ("+1h30m", 1.5 * HOUR),
        ("-1h30m", -1.5 * HOUR),
        ("30m1h", 1.5 * HOUR),
        ("1.5h", 1.5 * HOUR),
        ("1.h", HOUR),
        (".5s", timedelta(milliseconds=500)),
        ("1h15m30.918273s", timedelta(hours=1, minutes=15, seconds=30, microseconds=918273)),
        ("250ms", timedelta(milliseconds=250)),
        ("11us", timedelta(microseconds=11)),
        ("12µs", timedelta(microseconds=12)),
        ("12μs", timedelta(microseconds=12)),
        ("52763797000ns", timedelta(microseconds=52763797)),
        ("499ns", timedelta()),
        ("2562047h47m16.854775807s", timedelta(microseconds=9223372036854776)),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text, span):
    assert parse_duration(text) == span
    assert parse_argo_duration(text) == span
    assert parse_duration(text, days=True) == span


@pytest.mark.parametrize(
    "text",
    ["", "3", "-", "s", ".", "-.", ".s", "+.s", "1 h", " 1h", "1h ", "1h\n", "1d", "7w", "1y", "--1h", "1h-30m", "1H",
     "1e3s", "\u0661s", "0x1s", "1h30", "1.2.3s", "2562047h47m16.854775808s", "999999999h", "9" * 250 + "s"],
)  # fmt: skip
def test_what_go_does_not_read_is_refused(text):
    with pytest.raises(ManifestError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("0", 0), ("-5", -5), ("+5", 5), ("007", 7)])
def test_argo_takes_a_whole_number_for_seconds(text, seconds):
    assert parse_argo_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["1.5", "1d", "", "1 ", "9" * 40])
def test_argo_takes_no_fraction_without_a_unit_and_no_days(text):
    with pytest.raises(ManifestError, match="duration"):
        parse_argo_duration(text)


@pytest.mark.parametrize(
    ("text", "span"),
    [("7d", timedelta(days=7)), ("2w1d", timedelta(days=15)), ("1d12h", timedelta(days=1.5))],
)
def test_annotations_may_count_days_and_weeks(text, span):
    assert parse_duration(text, days=True) == span


@pytest.mark.parametrize("text", ["7", "d", "1y", "99999w"])
def test_an_annotation_that_is_no_duration_is_refused(text):
    with pytest.raises(ManifestError, match="duration"):
        parse_duration(text, days=True)
