"""Lineage's settings, read from `LINEAGE_…`."""

from datetime import timedelta

from pydantic import Field

from periplus_common.retention import KeepFor
from periplus_common.settings import ArtifactRepositorySettings


class Settings(ArtifactRepositorySettings, frozen=True, env_prefix="LINEAGE_"):
    """Frozen and read once."""

    batch_size: int = Field(default=512, ge=1, le=1000)
    """How many events one transaction stores at most. It takes what is there and does not wait for more."""
    max_in_flight: int = Field(default=2, ge=1, le=16)
    """How many such transactions of each stream run at the same time."""
    keep_runs: KeepFor = timedelta(days=365)
    """How long after its end a run is kept, with its steps and edges of the graph. It stays as long as a kept run uses it."""
    keep_snapshots: KeepFor = None
    """How long a snapshot that no run has is kept; by default for ever: it is published only once, and a later run may have
    it. Not less than the snapshotter's."""
