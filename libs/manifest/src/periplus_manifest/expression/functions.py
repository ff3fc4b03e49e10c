"""Every function that an expression may call, by its full name."""

from __future__ import annotations

from dataclasses import replace

from . import builtin, builtinlist, builtintext, clock, sprig
from .function import Table

FUNCTIONS: Table = {**builtin.TABLE, **builtinlist.TABLE, **builtintext.TABLE, **clock.TABLE}
FUNCTIONS |= {
    f"sprig.{name}": replace(function, name=f"sprig.{name}", empties=True)
    for name, function in sprig.TABLE.items()
}
