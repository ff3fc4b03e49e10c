"""Run the dispatcher, or migrate its schema: `python -m periplus_dispatcher [migrate]`."""

import asyncio
import sys

from periplus_common import postgres, runtime, telemetry
from periplus_dispatcher.app import app
from periplus_dispatcher.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    telemetry.start("dispatcher", otlp_endpoint=settings.otlp_endpoint)
    if sys.argv[1:] == ["migrate"]:
        dsn = settings.postgres_dsn.get_secret_value()
        asyncio.run(postgres.migrate(dsn, "periplus_common", "periplus_dispatcher"))
    else:
        runtime.run(app(settings))
