"""The snapshotter's settings, read from `SNAPSHOTTER_…`."""

from pydantic import Field

from periplus_common.settings import ObjectStoreSettings


class Settings(ObjectStoreSettings, frozen=True, env_prefix="SNAPSHOTTER_"):
    """Frozen and read once."""

    lockfile_processes: int = Field(default=2, ge=1, le=64)
    """How many lockfiles are parsed at the same time; each takes up to 512 MiB and one core for up to 5 s."""
