"""What a plan's queries have brought so far: live entries, and how far they are all there is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live entry, as far as a walk needs it. Outputs are read only if it is a hit."""

    fingerprint: str
    static_key: str
    run: str
    step: str
    stored_outputs: bytes
    confirmed_at: datetime
    took_us: int


@dataclass(slots=True)
class Known:
    """What was fetched so far."""

    entries: dict[str, Candidate] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)  # fingerprints that were looked up as such
    asked_static: set[str] = field(default_factory=set)
    alive: set[str] = field(default_factory=set)  # static keys that some live entry has
    complete: set[str] = field(default_factory=set)  # static keys of which all live entries are here

    def learn(
        self, limits: Mapping[str, int], by_static: Iterable[Candidate], exact: Iterable[Candidate]
    ) -> None:
        """Take in what a query gave: of each static key up to its limit and one more, if there is one."""
        counts = dict.fromkeys(limits, 0)
        for candidate in by_static:
            counts[candidate.static_key] += 1
            self.entries[candidate.fingerprint] = candidate
        for candidate in exact:
            self.entries[candidate.fingerprint] = candidate
            self.alive.add(candidate.static_key)
        self.asked_static |= limits.keys()
        self.alive.update(key for key, count in counts.items() if count)
        self.complete.update(key for key, limit in limits.items() if counts[key] <= limit)

    def forget(self, fingerprints: Iterable[str]) -> None:
        """Take out what is no longer served."""
        for fingerprint in fingerprints:
            candidate = self.entries.pop(fingerprint)
            if candidate.static_key in self.complete and not any(
                other.static_key == candidate.static_key for other in self.entries.values()
            ):
                self.alive.discard(candidate.static_key)
