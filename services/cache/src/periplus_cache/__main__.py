"""Run the service, or migrate its schema: `python -m periplus_cache [migrate]`."""

from periplus_cache.app import app
from periplus_cache.settings import Settings
from periplus_common.private_process import forbid_inspection
from periplus_common.program import main

if __name__ == "__main__":
    forbid_inspection()
    main("cache", Settings, app, migrations=["periplus_common", "periplus_cache"])
