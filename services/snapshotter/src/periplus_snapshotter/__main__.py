"""Run the snapshotter, or migrate its schema: `python -m periplus_snapshotter [migrate]`."""

import asyncio
import sys

from periplus_common import postgres, runtime, telemetry
from periplus_snapshotter.app import app
from periplus_snapshotter.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    telemetry.start("snapshotter", otlp_endpoint=settings.otlp_endpoint)
    if sys.argv[1:] == ["migrate"]:
        dsn = settings.postgres_dsn.get_secret_value()
        asyncio.run(postgres.migrate(dsn, "periplus_common", "periplus_snapshotter"))
    else:
        runtime.run(app(settings))
