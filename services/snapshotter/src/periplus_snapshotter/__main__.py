"""Run the service, or migrate its schema: `python -m periplus_snapshotter [migrate]`."""

from periplus_common.private_process import forbid_inspection
from periplus_common.program import main
from periplus_snapshotter.app import app
from periplus_snapshotter.settings import Settings

if __name__ == "__main__":
    forbid_inspection()
    main("snapshotter", Settings, app, migrations=["periplus_common", "periplus_snapshotter"])
