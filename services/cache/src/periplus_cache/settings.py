"""Settings of the cache service."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from periplus_common.settings import ObjectStoreSettings


class Settings(ObjectStoreSettings):
    """Read from environment variables CACHE_…."""

    model_config = SettingsConfigDict(env_prefix="CACHE_", frozen=True)

    epoch: int = Field(default=0, ge=0, le=2**31 - 1)
    """Part of every key. Raising it makes all existing entries unreachable without deleting any."""
    otlp_endpoint: str = ""
    """Where traces and metrics are exported to. Empty: not exported."""
