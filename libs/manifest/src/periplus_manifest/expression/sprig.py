"""The sprig functions that an expression may call, as sprig.name."""

from __future__ import annotations

from . import (
    clock,
    semver,
    sprigcode,
    sprigdefault,
    sprigkind,
    sprigline,
    spriglist,
    sprigmap,
    sprignumber,
    sprigregex,
    sprigtext,
    sprigurl,
)
from .function import Table

TABLE: Table = {
    **sprigtext.TABLE,
    **sprigline.TABLE,
    **sprigcode.TABLE,
    **sprigdefault.TABLE,
    **sprigmap.TABLE,
    **sprigregex.TABLE,
    **sprignumber.TABLE,
    **spriglist.TABLE,
    **sprigkind.TABLE,
    **sprigurl.TABLE,
    **semver.TABLE,
    **clock.SPRIG,
}
