"""Write the table of all metrics: `python -m periplus_common.telemetry docs/telemetry.md MODULE...`.

The modules are imported, and with them all that declares a metric.
"""

import importlib
import sys
from pathlib import Path

from periplus_common.telemetry.metrics import with_table

if __name__ == "__main__":
    path = Path(sys.argv[1])
    for name in sys.argv[2:]:
        importlib.import_module(name)
    path.write_text(with_table(path.read_text()))
