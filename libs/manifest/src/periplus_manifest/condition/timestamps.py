"""Quoted texts that govaluate takes for a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_STAMP = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:(?P<join>[T ])(?P<hour>\d\d)(?::(?P<minute>\d\d)"
    r"(?::(?P<second>\d\d)(?:[.,]\d+)?)?)?(?P<zone>Z|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_WRITTEN_START = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) |\d{1,2}:\d\d[AP]M$", re.ASCII)
_WRITTEN = ("%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y", "%I:%M%p")


def seconds(text: str) -> float | None:
    """Return the Unix seconds of a text in one of the forms that govaluate takes for a time, else None."""
    match = _STAMP.fullmatch(text)
    if match is None and not _WRITTEN_START.match(text):
        return None
    try:
        return _stamp(match) if match else _written(text)
    except (ValueError, OverflowError):
        return None


def _stamp(match: re.Match[str]) -> float | None:
    date, zone, spaced = match["date"], match["zone"], match["join"] == " "
    if match["join"] is None:
        return datetime.strptime(f"{date}+0000", "%Y-%m-%d%z").timestamp()
    if spaced and (match["minute"] is None or (zone and not (match["second"] and ":" in zone))):
        return None
    if not spaced and (zone is None or (":" in zone and match["second"] is None)):
        return None
    clock = f"{match['hour']}:{match['minute'] or '00'}:{match['second'] or '00'}"
    offset = "+0000" if zone in (None, "Z") else zone
    return datetime.strptime(f"{date} {clock}{offset}", "%Y-%m-%d %H:%M:%S%z").timestamp()


def _written(text: str) -> float | None:
    for form in _WRITTEN:
        try:
            moment = datetime.strptime(text, form)  # noqa: DTZ007 - the zone is set below
        except ValueError:
            continue
        if form == "%I:%M%p":
            # A time without a date is in the year 0, which datetime does not have.
            return moment.hour * 3600.0 + moment.minute * 60.0 - 62167219200.0
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None
