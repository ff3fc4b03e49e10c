"""Which rows are deleted, and when."""

from datetime import timedelta

from periplus_cache.settings import Settings
from periplus_common.retention import Retention

# How much older than an attempt the `used_at` of its template may be: `used_at` is written once a day, and an attempt may
# have finished a day after the time at which it was recorded. The third day is spare.
_TEMPLATE_MARGIN = timedelta(days=3)

# A run whose lease expired, and was not taken over, may go on to the end of its step: until then its result is recorded.
_KEEP_EXPIRED_LEASES = timedelta(days=14)


def retentions(settings: Settings) -> list[Retention]:
    """The retention of each table. A template stays for as long as an entry or an attempt refers to it."""
    keep_attempts = settings.keep_attempts
    return [
        Retention.older_than("attempt", "finished_at", keep_attempts),
        Retention.older_than("entry", "last_used_at", settings.keep_entries),
        Retention.older_than("divergence", "detected_at", keep_attempts),
        Retention.older_than("hit", "hit_at", settings.keep_hits),
        Retention.older_than("invalidation", "invalidated_at", settings.keep_invalidations),
        Retention.older_than("lease", "expires_at", _KEEP_EXPIRED_LEASES),
        Retention.older_than("lease_wait", "expires_at", _KEEP_EXPIRED_LEASES),
        Retention.older_than("content", "read_at", settings.keep_contents),
        Retention.older_than(
            "template",
            "used_at",
            None if keep_attempts is None else keep_attempts + _TEMPLATE_MARGIN,
            unless="EXISTS (SELECT FROM entry WHERE entry.static_key = candidate.static_key)",
        ),
    ]
