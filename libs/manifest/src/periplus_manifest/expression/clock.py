"""Times and durations: expr-lang's now, date and duration, sprig's dates, and the methods of both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from periplus_manifest.duration import parse_duration
from periplus_manifest.errors import ExpressionError, ManifestError
from periplus_manifest.gotext import duration_text

from .budget import Budget
from .function import ANY, TEXT, Table, declare
from .layout import RFC3339, parsed, written, zone
from .value import kind, moved

TABLE: Table = {}
SPRIG: Table = {}


@declare(TABLE, "now")
@declare(SPRIG, "now")
def _now(_: Budget) -> datetime:
    return datetime.now(UTC)


@declare(TABLE, "duration", TEXT)
def _duration(_: Budget, text: str) -> timedelta:
    return _span(text)


def _span(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ManifestError as error:
        raise ExpressionError("", error.message) from None


@declare(TABLE, "date", TEXT, TEXT, TEXT, least=1)
def _date(_: Budget, text: str, layout: str | None = None, place: str = "UTC") -> datetime:
    if layout is not None:
        return parsed(text, layout, zone(place))
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


def _time(given: Any) -> datetime:
    if isinstance(given, datetime):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        try:
            return datetime.fromtimestamp(given, UTC)
        except (ValueError, OverflowError, OSError):
            raise ExpressionError("", f"{given} is no time") from None
    # Anything else is the present to sprig, a text too.
    return datetime.now(UTC)


@declare(SPRIG, "date", TEXT, ANY)
def _sprig_date(_: Budget, layout: str, given: Any) -> str:
    return written(_time(given).astimezone(UTC), layout)


@declare(SPRIG, "dateInZone", TEXT, ANY, TEXT)
@declare(SPRIG, "date_in_zone", TEXT, ANY, TEXT)
def _date_inzone(_: Budget, layout: str, given: Any, place: str) -> str:
    return written(_time(given).astimezone(zone(place)), layout)


@declare(SPRIG, "htmlDate", ANY)
def _html_date(_: Budget, given: Any) -> str:
    return written(_time(given).astimezone(UTC), "2006-01-02")


@declare(SPRIG, "toDate", TEXT, TEXT)
@declare(SPRIG, "mustToDate", TEXT, TEXT)
def _to_date(_: Budget, layout: str, text: str) -> datetime:
    return parsed(text, layout)


@declare(SPRIG, "unixEpoch", ANY)
def _unix_epoch(_: Budget, given: Any) -> str:
    if not isinstance(given, datetime):
        raise ExpressionError("", f"sprig.unixEpoch takes a time, not {kind(given)}")
    return str(int(given.timestamp()))


@declare(SPRIG, "htmlDateInZone", ANY, TEXT)
def _html_date_in_zone(_: Budget, given: Any, place: str) -> str:
    return written(_time(given).astimezone(zone(place)), "2006-01-02")


@declare(SPRIG, "ago", ANY)
def _ago(_: Budget, given: Any) -> str:
    seconds = round((datetime.now(UTC) - _time(given)).total_seconds())
    return duration_text(timedelta(seconds=seconds))


@declare(SPRIG, "duration", ANY)
def _seconds(_: Budget, given: Any) -> str:
    whole = re.fullmatch(r"[-+]?[0-9]{1,18}", given, re.ASCII) if isinstance(given, str) else None
    try:
        return duration_text(timedelta(seconds=int(given) if whole else 0))
    except OverflowError:
        raise ExpressionError("", f"{given[:40]} seconds are too many") from None


@declare(SPRIG, "durationRound", ANY)
def _duration_round(_: Budget, given: Any) -> str:
    span = datetime.now(UTC) - given if isinstance(given, datetime) else timedelta()
    if isinstance(given, str):
        try:
            span = parse_duration(given)
        except ManifestError:
            span = timedelta()
    for unit, size in _ROUND.items():
        if abs(span) > size:
            return f"{abs(span) // size}{unit}"
    return "0s"


_ROUND = {
    "y": timedelta(days=365),
    "mo": timedelta(days=30),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}


@declare(SPRIG, "dateModify", TEXT, ANY)
@declare(SPRIG, "date_modify", TEXT, ANY)
@declare(SPRIG, "must_date_modify", TEXT, ANY)
@declare(SPRIG, "mustDateModify", TEXT, ANY)
def _date_modify(_: Budget, by: str, given: Any) -> Any:
    return moved(_time(given), _span(by))


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


def method(given: Any, name: str, arguments: list[Any]) -> Any:
    """Call a method of a time or a duration. Raises ExpressionError for other values and methods."""
    table = (
        _TIME_METHODS
        if isinstance(given, datetime)
        else _DURATION_METHODS
        if isinstance(given, timedelta)
        else {}
    )
    if name in table and not arguments:
        return table[name](given)
    if isinstance(given, datetime) and len(arguments) == 1:
        other = arguments[0]
        if name == "Format" and isinstance(other, str):
            return written(given, other)
        if name == "Add" and isinstance(other, timedelta):
            return moved(given, other)
        if name in ("Sub", "Before", "After") and isinstance(other, datetime):
            return {"Sub": given - other, "Before": given < other, "After": given > other}[name]
    raise ExpressionError("", f"{kind(given)} has no method {name} for {len(arguments)} arguments")
