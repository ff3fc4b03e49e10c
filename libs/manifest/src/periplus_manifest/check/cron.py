"""When a cron workflow runs: its schedules, each in the five fields of cron."""

from __future__ import annotations

import re
from typing import Any

from periplus_manifest.errors import ManifestError

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# The least and most of each field, and the names that stand for its numbers.
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 6, _DAYS),
)
_NAMED = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_PART = re.compile(r"(?:[*?]|([0-9]{1,4}|[a-z]{3})(?:-([0-9]{1,4}|[a-z]{3}))?)(?:/([0-9]{1,4}))?", re.ASCII)


def check(spec: Any) -> None:
    """Check the schedules of a CronWorkflow's spec."""
    schedules = spec.get("schedules") or ([spec["schedule"]] if spec.get("schedule") else [])
    if not schedules:
        raise ManifestError("spec.schedules", "a cron workflow must have at least one schedule")
    for index, schedule in enumerate(schedules):
        _schedule(schedule.strip(), f"spec.schedules[{index}]" if spec.get("schedules") else "spec.schedule")


def _schedule(text: str, path: str) -> None:
    text = re.sub(r"^(?:CRON_)?TZ=\S+\s+", "", text)
    if text in _NAMED or re.fullmatch(r"@every [0-9.hmsuµn]+", text):
        return
    fields = text.lower().split()
    if len(fields) != len(_FIELDS):
        raise ManifestError(
            path, f"cron schedule {text[:60]!r} is malformed: it has {len(fields)} fields, not 5"
        )
    for field, (name, least, most, names) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if not _fits(part, least, most, names):
                raise ManifestError(
                    path, f"cron schedule {text[:60]!r} is malformed: {part[:20]!r} is no {name}"
                )


def _fits(part: str, least: int, most: int, names: list[str]) -> bool:
    match = _PART.fullmatch(part)
    if match is None or match[3] == "0":
        return False
    ends = [
        names.index(end) + least if end in names else int(end) if end.isdigit() else -1
        for end in match.group(1, 2)
        if end
    ]
    return all(least <= end <= most for end in ends) and ends == sorted(ends)
