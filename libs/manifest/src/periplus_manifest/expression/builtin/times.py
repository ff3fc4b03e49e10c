"""expr-lang's now, date and duration, and the methods of times and durations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from periplus_manifest.duration import parse_duration
from periplus_manifest.errors import ExpressionError, ManifestError
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import TEXT, Table, declare
from periplus_manifest.expression.time_layout import RFC3339, parsed, written, zone
from periplus_manifest.expression.value import kind, moved
from periplus_manifest.gotext import duration_text

TABLE: Table = {}


@declare(TABLE, "now", is_volatile=True)
def _now(_: Budget) -> datetime:
    return datetime.now(UTC)


@declare(TABLE, "duration", TEXT)
def _duration(_: Budget, text: str) -> timedelta:
    return duration(text)


def duration(text: str) -> timedelta:
    """Read a duration such as 1h30m. Raises ExpressionError."""
    try:
        return parse_duration(text)
    except ManifestError as error:
        raise ExpressionError("", error.message) from None


@declare(TABLE, "date", TEXT, TEXT, TEXT, required=1)
def _date(_: Budget, text: str, layout: str | None = None, zone_name: str = "UTC") -> datetime:
    if layout is not None:
        return parsed(text, layout, zone(zone_name))
    for each in (
        "2006-01-02",
        "15:04:05",
        "2006-01-02 15:04:05",
        RFC3339,
        "02 Jan 06 15:04 MST",
        "Mon, 02 Jan 2006 15:04:05 MST",
    ):
        try:
            return parsed(text, each)
        except ExpressionError:
            continue
    raise ExpressionError("", f"invalid date {text[:60]}")


_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
_TIME_METHODS: Mapping[str, Any] = {
    "Unix": lambda moment: int(moment.timestamp()),
    "UnixMilli": lambda moment: int(moment.timestamp() * 1000),
    "Year": lambda moment: moment.year,
    "Month": lambda moment: moment.month,
    "Day": lambda moment: moment.day,
    "Hour": lambda moment: moment.hour,
    "Minute": lambda moment: moment.minute,
    "Second": lambda moment: moment.second,
    "YearDay": lambda moment: moment.timetuple().tm_yday,
    "Weekday": lambda moment: (moment.weekday() + 1) % 7,
    "UTC": lambda moment: moment.astimezone(UTC),
    "String": lambda moment: written(moment, "2006-01-02 15:04:05.999999999 -0700 MST"),
}
_DURATION_METHODS: Mapping[str, Any] = {
    "Seconds": lambda span: span.total_seconds(),
    "Minutes": lambda span: span // _MINUTE + (span % _MINUTE) / _MINUTE,
    "Hours": lambda span: span // _HOUR + (span % _HOUR) / _HOUR,
    "String": duration_text,
    "Milliseconds": lambda span: span // timedelta(milliseconds=1),
}
METHODS = frozenset((*_TIME_METHODS, *_DURATION_METHODS, "Format", "Add", "Sub", "Before", "After"))


def method(argument: Any, name: str, arguments: list[Any]) -> Any:
    """Call a method of a time or a duration. Raises ExpressionError for other values and methods."""
    table = (
        _TIME_METHODS
        if isinstance(argument, datetime)
        else _DURATION_METHODS
        if isinstance(argument, timedelta)
        else {}
    )
    if name in table and not arguments:
        return table[name](argument)
    if isinstance(argument, datetime) and len(arguments) == 1:
        other = arguments[0]
        if name == "Format" and isinstance(other, str):
            return written(argument, other)
        if name == "Add" and isinstance(other, timedelta):
            return moved(argument, other)
        if name in ("Sub", "Before", "After") and isinstance(other, datetime):
            return {"Sub": argument - other, "Before": argument < other, "After": argument > other}[name]
    raise ExpressionError("", f"{kind(argument)} has no method {name} for {len(arguments)} arguments")
