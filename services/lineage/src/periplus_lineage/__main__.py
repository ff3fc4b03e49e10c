"""Run the service, or migrate its schema: `python -m periplus_lineage [migrate]`."""

from periplus_common.private_process import forbid_inspection
from periplus_common.program import main
from periplus_lineage.app import app
from periplus_lineage.settings import Settings

if __name__ == "__main__":
    forbid_inspection()
    main("lineage", Settings, app, migrations=["periplus_lineage"])
