"""The live entries that a request's queries have fetched so far, and whether there are more."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from periplus_cache.domain import Candidate


@dataclass(slots=True)
class CandidateIndex:
    """Candidates by fingerprint; those with discovered inputs also by their base fingerprint, the newest first.

    `fetched` and `fetched_static` are the fingerprints and static keys that were queried. A static key in `live` has a
    live entry; of one in `complete` all live entries are here.
    """

    by_fingerprint: dict[str, Candidate] = field(default_factory=dict)
    by_base: dict[str, list[Candidate]] = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)
    fetched_static: set[str] = field(default_factory=set)
    live: set[str] = field(default_factory=set)
    complete: set[str] = field(default_factory=set)

    @property
    def is_fetched(self) -> bool:
        """Whether anything was queried."""
        return bool(self.fetched or self.fetched_static)

    def add(
        self, limits: Mapping[str, int], by_static_key: Iterable[Candidate], exact: Iterable[Candidate]
    ) -> None:
        """Add the rows of a query: of each static key up to its limit plus one, which shows that there are more."""
        counts = dict.fromkeys(limits, 0)
        for candidate in by_static_key:
            counts[candidate.static_key] += 1
            self._add(candidate)
        for candidate in exact:
            self._add(candidate)
            self.live.add(candidate.static_key)
        self.fetched_static |= limits.keys()
        self.live.update(key for key, count in counts.items() if count)
        self.complete.update(key for key, limit in limits.items() if counts[key] <= limit)

    def _add(self, candidate: Candidate) -> None:
        if candidate.base_fingerprint and candidate.fingerprint not in self.by_fingerprint:
            found = self.by_base.setdefault(candidate.base_fingerprint, [])
            found.append(candidate)
            found.sort(key=lambda each: each.confirmed_at, reverse=True)
        self.by_fingerprint[candidate.fingerprint] = candidate

    def find(self, fingerprint: str, code_index: Mapping[str, str]) -> Candidate | None:
        """The entry of a key whose discovered inputs, if it has any, are the same now."""
        found = self.by_fingerprint.get(fingerprint)
        if found is not None and not found.base_fingerprint:
            return found
        for candidate in self.by_base.get(fingerprint, ()):
            if not changed(candidate, code_index):
                return candidate
        return None

    def remove(self, fingerprints: Iterable[str]) -> None:
        """Remove entries that were invalidated."""
        for fingerprint in fingerprints:
            candidate = self.by_fingerprint.pop(fingerprint)
            if candidate.base_fingerprint:
                self.by_base[candidate.base_fingerprint].remove(candidate)
            if candidate.static_key in self.complete and not any(
                other.static_key == candidate.static_key for other in self.by_fingerprint.values()
            ):
                self.live.discard(candidate.static_key)


def changed(candidate: Candidate, code_index: Mapping[str, str]) -> list[str]:
    """The discovered inputs of an entry that are not the same now, in the order of their names."""
    return sorted(
        name for name, found in candidate.discovered.items() if not found or code_index.get(name) != found
    )
