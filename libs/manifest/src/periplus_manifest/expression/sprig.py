"""The sprig functions that an expression may call, as sprig.name."""

from __future__ import annotations

from . import clock, sprigcode, sprigdefault, spriglist, sprigmap, sprignumber, sprigregex, sprigtext
from .function import Table

TABLE: Table = {
    **sprigtext.TABLE,
    **sprigcode.TABLE,
    **sprigdefault.TABLE,
    **sprigmap.TABLE,
    **sprigregex.TABLE,
    **sprignumber.TABLE,
    **spriglist.TABLE,
    **clock.SPRIG,
}
