"""Every knob of this service, read once from the environment."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from periplus_common.settings import ArtifactRepositorySettings


class Settings(ArtifactRepositorySettings):
    """Variables begin with DISPATCHER_."""

    model_config = SettingsConfigDict(env_prefix="DISPATCHER_")

    argo_url: str
    argo_token: SecretStr = SecretStr("")
    argo_namespace: str
    cache_address: str
    snapshotter_address: str

    gate_seconds: int = Field(default=60, ge=1, le=86_400)
    """After so long without an answer a gate opens, and its step runs."""
    cache_seconds: float = Field(default=5.0, gt=0)
    """After so long without an answer of the cache, steps run."""
