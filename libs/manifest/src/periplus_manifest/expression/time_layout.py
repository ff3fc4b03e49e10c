"""Go's layouts, which say how a time is written by writing one moment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from periplus_manifest.errors import ExpressionError

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
    "002": r"\d{3}", "-0700": r"(?P<z>[+-]\d{4})", "-07": r"(?P<z>[+-]\d\d)",
}  # fmt: skip
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_MAX_LAYOUT_CHARACTERS = 200


def written(moment: datetime, layout: str) -> str:
    """Write a moment by one of Go's layouts."""
    if len(layout) > _MAX_LAYOUT_CHARACTERS:
        raise ExpressionError("", f"a layout longer than {_MAX_LAYOUT_CHARACTERS} characters")
    return _LAYOUT.sub(lambda match: _written_part(moment, match[0]), layout)


def _written_part(moment: datetime, part: str) -> str:
    offset = moment.utcoffset() or timedelta()
    minutes = int(abs(offset).total_seconds() // 60)
    sign = "-" if offset < timedelta() else "+"
    if part[0] in ".,":
        fraction = f"{moment.microsecond * 1000:09d}"[: len(part) - 1]
        digits = fraction.rstrip("0") if part[1] == "9" else fraction
        return part[0] + digits if digits else ""
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


def parsed(text: str, layout: str, default_zone: tzinfo = UTC) -> datetime:
    """Read a moment by one of Go's layouts. Raises ExpressionError when it does not fit."""
    match = None
    if len(layout) <= _MAX_LAYOUT_CHARACTERS and len(text) <= _MAX_LAYOUT_CHARACTERS:
        pattern, position = "", 0
        for part in _LAYOUT.finditer(layout):
            pattern += re.escape(layout[position : part.start()]) + _pattern(part[0])
            position = part.end()
        try:
            match = re.fullmatch(pattern + re.escape(layout[position:]), text, re.ASCII)
        except re.error:
            raise ExpressionError("", f"the layout {layout!r} names a part twice") from None
    if match is None:
        raise ExpressionError("", f"the time {text[:60]!r} is not written as {layout[:60]!r}")
    try:
        return _moment(match.groupdict(), default_zone)
    except (ValueError, OverflowError) as error:
        raise ExpressionError("", f"the time {text[:60]!r}: {error}") from None


def _pattern(part: str) -> str:
    if part[0] in ".,":
        return rf"[.,]\d{{{len(part) - 1}}}" if part[1] == "0" else r"(?:[.,]\d{1,9})?"
    return _READ[part]


def _moment(parts: Mapping[str, str | None], default_zone: tzinfo) -> datetime:
    month = int(parts.get("m") or 1)
    if name := parts.get("B") or parts.get("b"):
        month = 1 + next((number for number, full in enumerate(_MONTHS) if full.startswith(name)), 12)
    hour = int(parts.get("H") or parts.get("I") or 0)
    if parts.get("p"):
        hour = hour % 12 + (12 if str(parts["p"]).lower() == "pm" else 0)
    # Without a year Go means the year 0, which Python does not have.
    year = int(parts.get("Y") or 0) or (2000 + int(parts["y"] or 0) if parts.get("y") else 1)
    written_zone = parts.get("z")
    if written_zone:
        default_zone = datetime.strptime(written_zone.replace("Z", "+0000").ljust(5, "0"), "%z").tzinfo or UTC
    return datetime(
        year,
        month,
        int(parts.get("d") or 1),
        hour,
        int(parts.get("M") or 0),
        int(parts.get("S") or 0),
        tzinfo=default_zone,
    )


def zone(name: str) -> tzinfo:
    """Return a time zone by its name. Raises ExpressionError."""
    if name in ("", "UTC", "Local"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ExpressionError("", f"unknown time zone {name[:60]}") from None
