"""Run the dispatcher, or bring its tables up to date: `python -m periplus_dispatcher [migrate]`."""

import asyncio
import sys

from periplus_common import postgres, runtime, telemetry
from periplus_dispatcher.app import app
from periplus_dispatcher.settings import Settings

if __name__ == "__main__":
    settings = Settings()  # its fields come from the environment
    telemetry.start("dispatcher")
    if sys.argv[1:] == ["migrate"]:
        asyncio.run(
            postgres.migrate(
                settings.postgres_dsn.get_secret_value(), "periplus_common", "periplus_dispatcher"
            )
        )
    else:
        runtime.run(app(settings))
