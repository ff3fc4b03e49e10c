"""Times and durations: expr-lang's now, date and duration, sprig's dates, and Go's layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import ExpressionError
from .budget import Budget
from .function import ANY, TEXT, Table, declare
from .value import kind

TABLE: Table = {}
SPRIG: Table = {}

RFC3339 = "2006-01-02T15:04:05Z07:00"

# A layout is written with the parts of one moment: Mon Jan 2 15:04:05 MST 2006.
_LAYOUT = re.compile(
    r"2006|January|Jan|Monday|Mon|MST|Z07:00|Z0700|-07:00|-0700|-07|01|02|03|04|05|06|002|15|PM|pm|_2|[.,][09]+|1|2|3|4|5"
)
_READ: dict[str, str] = {
    "2006": r"(?P<Y>\d{4})", "06": r"(?P<y>\d\d)", "January": r"(?P<B>[A-Z][a-z]+)", "Jan": r"(?P<b>[A-Z][a-z]{2})",
    "01": r"(?P<m>\d\d)", "1": r"(?P<m>\d\d?)", "02": r"(?P<d>\d\d)", "2": r"(?P<d>\d\d?)", "_2": r" ?(?P<d>\d\d?)",
    "15": r"(?P<H>\d\d)", "03": r"(?P<I>\d\d)", "3": r"(?P<I>\d\d?)", "04": r"(?P<M>\d\d)", "4": r"(?P<M>\d\d?)",
    "05": r"(?P<S>\d\d)(?:[.,]\d{1,9})?", "5": r"(?P<S>\d\d?)(?:[.,]\d{1,9})?", "PM": r"(?P<p>AM|PM)", "pm": r"(?P<p>am|pm)",
    "Monday": r"[A-Z][a-z]+day", "Mon": r"[A-Z][a-z]{2}", "MST": r"(?P<Z>UTC|GMT)",
    "Z07:00": r"(?P<z>Z|[+-]\d\d:\d\d)", "Z0700": r"(?P<z>Z|[+-]\d{4})", "-07:00": r"(?P<z>[+-]\d\d:\d\d)",
    "-0700": r"(?P<z>[+-]\d{4})", "-07": r"(?P<z>[+-]\d\d)",
}  # fmt: skip
_MONTHS = "January February March April May June July August September October November December".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_UNITS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1, "µs": 1, "ns": 0.001}
_LONGEST_LAYOUT = 200


def written(moment: datetime, layout: str) -> str:
    """Write a moment by one of Go's layouts."""
    if len(layout) > _LONGEST_LAYOUT:
        raise ExpressionError("", f"a layout longer than {_LONGEST_LAYOUT} characters")
    return _LAYOUT.sub(lambda match: _written_part(moment, match[0]), layout)


def _written_part(moment: datetime, part: str) -> str:
    offset = moment.utcoffset() or timedelta()
    minutes = int(abs(offset).total_seconds() // 60)
    sign = "-" if offset < timedelta() else "+"
    if part[0] in ".,":
        fraction = f"{moment.microsecond * 1000:09d}"[: len(part) - 1]
        kept = fraction.rstrip("0") if part[1] == "9" else fraction
        return part[0] + kept if kept else ""
    if part[0] == "Z" and not offset:
        return "Z"
    if part[-2:] in ("00", "07"):
        colon = ":" if ":" in part else ""
        return f"{sign}{minutes // 60:02d}" + ("" if part == "-07" else f"{colon}{minutes % 60:02d}")
    hour = moment.hour % 12 or 12
    day = moment.timetuple().tm_yday
    return {
        "2006": f"{moment.year:04d}", "06": f"{moment.year % 100:02d}", "January": _MONTHS[moment.month - 1],
        "Jan": _MONTHS[moment.month - 1][:3], "01": f"{moment.month:02d}", "1": str(moment.month),
        "02": f"{moment.day:02d}", "2": str(moment.day), "_2": f"{moment.day:2d}", "002": f"{day:03d}",
        "Monday": _DAYS[moment.weekday()], "Mon": _DAYS[moment.weekday()][:3], "15": f"{moment.hour:02d}",
        "03": f"{hour:02d}", "3": str(hour), "04": f"{moment.minute:02d}", "4": str(moment.minute),
        "05": f"{moment.second:02d}", "5": str(moment.second), "PM": "AM" if moment.hour < 12 else "PM",
        "pm": "am" if moment.hour < 12 else "pm", "MST": moment.tzname() or "UTC",
    }[part]  # fmt: skip


def parsed(text: str, layout: str, zone: tzinfo = UTC) -> datetime:
    """Read a moment by one of Go's layouts. Raises ExpressionError when it does not fit."""
    match = None
    if len(layout) <= _LONGEST_LAYOUT and len(text) <= _LONGEST_LAYOUT:
        pattern, position = "", 0
        for part in _LAYOUT.finditer(layout):
            pattern += re.escape(layout[position : part.start()]) + _READ.get(part[0], r"[.,]?\d*")
            position = part.end()
        try:
            match = re.fullmatch(pattern + re.escape(layout[position:]), text, re.ASCII)
        except re.error:
            raise ExpressionError("", f"the layout {layout!r} names a part twice") from None
    if match is None:
        raise ExpressionError("", f"the time {text[:60]!r} is not written as {layout[:60]!r}")
    try:
        return _moment(match.groupdict(), zone)
    except (ValueError, OverflowError) as error:
        raise ExpressionError("", f"the time {text[:60]!r}: {error}") from None


def _moment(parts: Mapping[str, str | None], zone: tzinfo) -> datetime:
    month = int(parts.get("m") or 1)
    if name := parts.get("B") or parts.get("b"):
        month = 1 + next((place for place, full in enumerate(_MONTHS) if full.startswith(name)), 12)
    hour = int(parts.get("H") or parts.get("I") or 0)
    if parts.get("p"):
        hour = hour % 12 + (12 if str(parts["p"]).lower() == "pm" else 0)
    # Without a year Go means the year 0, which Python does not have.
    year = int(parts.get("Y") or 0) or (2000 + int(parts["y"] or 0) if parts.get("y") else 1)
    written_zone = parts.get("z")
    if written_zone:
        zone = datetime.strptime(written_zone.replace("Z", "+0000").ljust(5, "0"), "%z").tzinfo or UTC
    return datetime(year, month, int(parts.get("d") or 1), hour, int(parts.get("M") or 0), int(parts.get("S") or 0), tzinfo=zone)


def duration(text: str) -> timedelta:
    """Read a duration such as 1h30m or 250ms. Raises ExpressionError."""
    match = re.fullmatch(r"([-+]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h))+|0)", text[:200])
    if match is None:
        raise ExpressionError("", f"{text[:60]!r} is not a duration such as 1h30m")
    total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ns|us|µs|ms|s|m|h)", match[2]))
    try:
        return timedelta(microseconds=-total if match[1] == "-" else total)
    except OverflowError:
        raise ExpressionError("", f"the duration {text[:60]!r} is too long") from None


def _zone(name: str) -> tzinfo:
    if name in ("", "UTC", "Local"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ExpressionError("", f"unknown time zone {name[:60]}") from None


@declare(TABLE, "now")
@declare(SPRIG, "now")
def _now(_: Budget) -> datetime:
    return datetime.now(UTC)


@declare(TABLE, "duration", TEXT)
def _duration(_: Budget, text: str) -> timedelta:
    return duration(text)


@declare(TABLE, "date", TEXT, TEXT, TEXT, least=1)
def _date(_: Budget, text: str, layout: str | None = None, zone: str = "UTC") -> datetime:
    if layout is not None:
        return parsed(text, layout, _zone(zone))
    for each in ("2006-01-02", "15:04:05", "2006-01-02 15:04:05", RFC3339, "02 Jan 06 15:04 MST", "Mon, 02 Jan 2006 15:04:05 MST"):
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
def _date_in_zone(_: Budget, layout: str, given: Any, zone: str) -> str:
    return written(_time(given).astimezone(_zone(zone)), layout)


@declare(SPRIG, "htmlDate", ANY)
def _html_date(_: Budget, given: Any) -> str:
    return written(_time(given).astimezone(UTC), "2006-01-02")


@declare(SPRIG, "toDate", TEXT, TEXT)
@declare(SPRIG, "mustToDate", TEXT, TEXT)
def _to_date(_: Budget, layout: str, text: str) -> datetime:
    return parsed(text, layout)


@declare(SPRIG, "unixEpoch", ANY)
def _unix_epoch(_: Budget, given: Any) -> str:
    return str(int(_time(given).timestamp()))


@declare(SPRIG, "dateModify", TEXT, ANY)
@declare(SPRIG, "date_modify", TEXT, ANY)
@declare(SPRIG, "mustDateModify", TEXT, ANY)
def _date_modify(_: Budget, by: str, given: Any) -> datetime:
    try:
        return _time(given) + duration(by)
    except OverflowError:
        raise ExpressionError("", f"{by[:60]} leads out of the calendar") from None


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
    "Minutes": lambda span: span.total_seconds() / 60,
    "Hours": lambda span: span.total_seconds() / 3600,
    "Milliseconds": lambda span: span // timedelta(milliseconds=1),
}
METHODS = frozenset((*_TIME_METHODS, *_DURATION_METHODS, "Format", "Add", "Sub", "Before", "After"))


def method(given: Any, name: str, arguments: list[Any]) -> Any:
    """Call a method of a time or a duration. Raises ExpressionError for other values and methods."""
    table = _TIME_METHODS if isinstance(given, datetime) else _DURATION_METHODS if isinstance(given, timedelta) else {}
    if name in table and not arguments:
        return table[name](given)
    if isinstance(given, datetime) and len(arguments) == 1:
        other = arguments[0]
        if name == "Format" and isinstance(other, str):
            return written(given, other)
        if name == "Add" and isinstance(other, timedelta):
            return given + other
        if name in ("Sub", "Before", "After") and isinstance(other, datetime):
            return {"Sub": given - other, "Before": given < other, "After": given > other}[name]
    raise ExpressionError("", f"{kind(given)} has no method {name} for {len(arguments)} arguments")
