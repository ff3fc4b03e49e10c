"""Settings of the cache service."""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from periplus_common.retention import KeepFor
from periplus_common.settings import ObjectStoreSettings

MAX_REDELIVERY = timedelta(days=14)  # how long the stream and the outbox keep an event


def _outlives_events(keep_for: timedelta | None) -> timedelta | None:
    if keep_for is not None and keep_for <= MAX_REDELIVERY:
        raise ValueError(
            f"must be more than {MAX_REDELIVERY.days}: an event that is delivered again after its attempt was deleted "
            "would be recorded again, and could restore an entry that was invalidated"
        )
    return keep_for


class Settings(ObjectStoreSettings):
    """Read from environment variables CACHE_…. Each `keep_…` is a number of days, or `forever`."""

    model_config = SettingsConfigDict(env_prefix="CACHE_", frozen=True)

    epoch: int = Field(default=0, ge=0, le=2**31 - 1)
    """Part of every key. Raising it makes all existing entries unreachable without deleting any."""
    lease_seconds: float = Field(default=15.0, ge=1.0, le=3600.0)
    """A run's hold on the steps that it makes ends after this time without renewal, and other runs make them. The dispatcher renews
    every 5 seconds."""
    keep_entries: KeepFor = timedelta(days=180)
    """Entries, valid or not, since they were last recorded, confirmed or hit."""
    keep_attempts: Annotated[KeepFor, AfterValidator(_outlives_events)] = timedelta(days=90)
    """Finished steps, which ExplainMiss explains; more than 14 days."""
    keep_hits: KeepFor = timedelta(days=365)
    """Hits, which GetSavings and an entry's `hits` count."""
    keep_invalidations: KeepFor = timedelta(days=90)
    """Why entries were invalidated or replaced, for ExplainMiss."""
    keep_contents: KeepFor = timedelta(days=180)
    """Content digests of objects since they were read. An object whose digest was deleted is read again."""
