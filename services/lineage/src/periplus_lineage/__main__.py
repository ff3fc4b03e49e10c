"""Run lineage, or migrate its schema: `python -m periplus_lineage [migrate]`."""

import asyncio
import sys

from periplus_common import postgres, runtime, telemetry
from periplus_lineage.app import app
from periplus_lineage.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    telemetry.start("lineage", otlp_endpoint=settings.otlp_endpoint)
    if sys.argv[1:] == ["migrate"]:
        asyncio.run(postgres.migrate(settings.postgres_dsn.get_secret_value(), "periplus_lineage"))
    else:
        runtime.run(app(settings))
