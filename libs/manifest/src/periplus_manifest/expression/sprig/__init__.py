"""The sprig functions that an expression may call as sprig.<name>; each module declares those of one subject."""

from __future__ import annotations

from periplus_manifest.expression.function import Table

from . import dates, encodings, kinds, lists, maps, numbers, paths, regexes, semver, texts

TABLE: Table = {
    **texts.TABLE,
    **encodings.TABLE,
    **kinds.TABLE,
    **maps.TABLE,
    **regexes.TABLE,
    **numbers.TABLE,
    **lists.TABLE,
    **paths.TABLE,
    **semver.TABLE,
    **dates.TABLE,
}
