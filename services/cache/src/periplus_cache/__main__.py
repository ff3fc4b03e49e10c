"""Run the cache service, or with `migrate` bring its schema up to date."""

import asyncio
import sys

from periplus_cache.app import app
from periplus_cache.settings import Settings
from periplus_common import postgres, telemetry
from periplus_common.runtime import run


def main() -> None:
    """Serve until a signal arrives, or migrate."""
    settings = Settings()
    telemetry.start("cache", otlp_endpoint=settings.otlp_endpoint)
    if sys.argv[1:] == ["migrate"]:
        dsn = settings.postgres_dsn.get_secret_value()
        asyncio.run(postgres.migrate(dsn, "periplus_common", "periplus_cache"))
    elif not sys.argv[1:]:
        run(app(settings))
    else:
        sys.exit("usage: python -m periplus_cache [migrate]")


if __name__ == "__main__":
    main()
