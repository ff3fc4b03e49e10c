"""Lineage's knobs, read from `LINEAGE_…`."""

from pydantic import Field

from periplus_common.settings import ArtifactRepositorySettings


class Settings(ArtifactRepositorySettings, frozen=True, env_prefix="LINEAGE_"):
    """Frozen and read once."""

    batch: int = Field(default=512, ge=1, le=1000)
    """How many events one transaction stores at most. It takes what is there and never waits for more."""
    flights: int = Field(default=2, ge=1, le=16)
    """How many such transactions are under way at once, for each stream."""
    otlp_endpoint: str = ""
    """Where traces and metrics go, "host:port"; empty: nowhere."""
