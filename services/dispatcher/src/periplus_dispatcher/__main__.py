"""Run the service, or migrate its schema: `python -m periplus_dispatcher [migrate]`."""

from periplus_common.private_process import forbid_inspection
from periplus_common.program import main
from periplus_dispatcher.app import app
from periplus_dispatcher.settings import Settings

if __name__ == "__main__":
    forbid_inspection()
    main("dispatcher", Settings, app, migrations=["periplus_common", "periplus_dispatcher"])
