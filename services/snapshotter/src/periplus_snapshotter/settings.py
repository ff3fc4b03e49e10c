"""The snapshotter's settings, read from `SNAPSHOTTER_…`."""

from pydantic import Field

from periplus_common.retention import KeepFor
from periplus_common.settings import ObjectStoreSettings


class Settings(ObjectStoreSettings, frozen=True, env_prefix="SNAPSHOTTER_"):
    """Frozen and read once."""

    lockfile_processes: int = Field(default=2, ge=1, le=64)
    """How many lockfiles are parsed at the same time; each takes up to 512 MiB and one core for up to 5 s."""
    keep_snapshots: KeepFor = None
    """How long a snapshot is kept after it was last taken, with its objects; by default for ever, as lineage refers to it.
    Not less than lineage keeps runs."""
