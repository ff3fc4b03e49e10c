"""The knobs of the local Argo."""

import os
import re
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ArgoSettings(BaseSettings):
    """Each is an environment variable that begins with ARGO_."""

    model_config = SettingsConfigDict(env_prefix="ARGO_")

    home: Path = Path(".periplus/argo")
    port: int = 0
    token_file: Path | None = None
    s3_endpoint: str = "127.0.0.1:8333"
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")
    s3_bucket: str = "artifacts"
    s3_secure: bool = False
    slots: int = os.cpu_count() or 1
    grace_seconds: float = 10.0
    transient_error_pattern: re.Pattern[str] | None = None
