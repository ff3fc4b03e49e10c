"""Lineage's settings, read from `LINEAGE_…`."""

from pydantic import Field

from periplus_common.settings import ArtifactRepositorySettings


class Settings(ArtifactRepositorySettings, frozen=True, env_prefix="LINEAGE_"):
    """Frozen and read once."""

    batch_size: int = Field(default=512, ge=1, le=1000)
    """How many events one transaction stores at most. It takes what is there and does not wait for more."""
    max_in_flight: int = Field(default=2, ge=1, le=16)
    """How many such transactions of each stream run at the same time."""
    otlp_endpoint: str = ""
    """Where traces and metrics are sent, "host:port"; empty: nowhere."""
