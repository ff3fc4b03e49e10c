"""sprig's dates and durations."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from periplus_manifest.duration import parse_duration
from periplus_manifest.errors import ExpressionError, ManifestError
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.builtin.times import duration
from periplus_manifest.expression.function import ANY, TEXT, Table, declare
from periplus_manifest.expression.time_layout import parsed, written, zone
from periplus_manifest.expression.value import kind, moved
from periplus_manifest.gotext import duration_text

TABLE: Table = {}


@declare(TABLE, "now", is_volatile=True)
def _now(_: Budget) -> datetime:
    return datetime.now(UTC)


def _time(argument: Any) -> datetime:
    if isinstance(argument, datetime):
        return argument
    if isinstance(argument, int) and not isinstance(argument, bool):
        try:
            return datetime.fromtimestamp(argument, UTC)
        except (ValueError, OverflowError, OSError):
            raise ExpressionError("", f"{argument} is no time") from None
    # Anything else is the present to sprig, a text too.
    return datetime.now(UTC)


@declare(TABLE, "date", TEXT, ANY, time_argument=1)
def _sprig_date(_: Budget, layout: str, argument: Any) -> str:
    return written(_time(argument).astimezone(UTC), layout)


@declare(TABLE, "dateInZone", TEXT, ANY, TEXT, time_argument=1)
@declare(TABLE, "date_in_zone", TEXT, ANY, TEXT, time_argument=1)
def _date_inzone(_: Budget, layout: str, argument: Any, zone_name: str) -> str:
    return written(_time(argument).astimezone(zone(zone_name)), layout)


@declare(TABLE, "htmlDate", ANY, time_argument=0)
def _html_date(_: Budget, argument: Any) -> str:
    return written(_time(argument).astimezone(UTC), "2006-01-02")


@declare(TABLE, "toDate", TEXT, TEXT)
@declare(TABLE, "mustToDate", TEXT, TEXT)
def _to_date(_: Budget, layout: str, text: str) -> datetime:
    return parsed(text, layout)


@declare(TABLE, "unixEpoch", ANY)
def _unix_epoch(_: Budget, argument: Any) -> str:
    if not isinstance(argument, datetime):
        raise ExpressionError("", f"sprig.unixEpoch takes a time, not {kind(argument)}")
    return str(int(argument.timestamp()))


@declare(TABLE, "htmlDateInZone", ANY, TEXT, time_argument=0)
def _html_date_in_zone(_: Budget, argument: Any, zone_name: str) -> str:
    return written(_time(argument).astimezone(zone(zone_name)), "2006-01-02")


@declare(TABLE, "ago", ANY, is_volatile=True)
def _ago(_: Budget, argument: Any) -> str:
    seconds = round((datetime.now(UTC) - _time(argument)).total_seconds())
    return duration_text(timedelta(seconds=seconds))


@declare(TABLE, "duration", ANY)
def _seconds(_: Budget, argument: Any) -> str:
    whole = re.fullmatch(r"[-+]?[0-9]{1,18}", argument, re.ASCII) if isinstance(argument, str) else None
    try:
        return duration_text(timedelta(seconds=int(argument) if whole else 0))
    except OverflowError:
        raise ExpressionError("", f"{argument[:40]} seconds are too many") from None


@declare(TABLE, "durationRound", ANY, is_volatile=True)
def _duration_round(_: Budget, argument: Any) -> str:
    span = datetime.now(UTC) - argument if isinstance(argument, datetime) else timedelta()
    if isinstance(argument, str):
        try:
            span = parse_duration(argument)
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


@declare(TABLE, "dateModify", TEXT, ANY, time_argument=1)
@declare(TABLE, "date_modify", TEXT, ANY, time_argument=1)
@declare(TABLE, "must_date_modify", TEXT, ANY, time_argument=1)
@declare(TABLE, "mustDateModify", TEXT, ANY, time_argument=1)
def _date_modify(_: Budget, by: str, argument: Any) -> Any:
    return moved(_time(argument), duration(by))
