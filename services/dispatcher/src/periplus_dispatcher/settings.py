"""The settings of this service, read once from the environment."""

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
    """A gate without an answer ends after this time, and its step runs."""
    cache_seconds: float = Field(default=5.0, gt=0)
    """The steps run if the cache does not answer in this time."""
