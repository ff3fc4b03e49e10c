"""Whether keys are right: mutants of an example pipeline of 50 modules, each run without the cache and compared with what the cache would say.

    python bench/key_mutants.py [mutants] [seed]

The base runs once, and leaves its results in the cache. Of each mutant, each step is a hit or a miss by the product's own code
(libs/sdk, services/dispatcher, services/cache), and has the outputs of a run without the cache. The columns:

    false hits   a hit, and the outputs differ: a wrong result. Must be 0.
    true hits    a hit, and the outputs are equal
    avoidable    a miss, although the step does not use what was edited, so that its outputs cannot change.
                 At least 90 % of such steps must be hits, and all of them for comments, layout, unused docstrings and local renames.
    equal        a miss, the step uses what was edited, and the outputs happen to be equal
    true misses  a miss, and the outputs differ

Whether a step uses what was edited is tried: the statement is replaced by one that raises, or a name's value by one that has no use, and
the step runs again. A step that starts another process uses all code, as that may import it. Steps that are not cached at all are left out. `refused`: mutants that do not compile, such as an import of nothing.
With -v each false hit and each avoidable miss is printed.
"""

import gc
import os
import pickle
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mutants.draw import NEUTRAL, Mutant, draw
from mutants.example import PACKAGES, pinned, project
from mutants.oracle import Cache, Compiled, Machine, Ran, Version

from periplus.sdk.discovery.names import EVERYTHING

COLUMNS = ("false hits", "true hits", "avoidable", "equal", "true misses")
MIN_HITS = 0.9
"""Of the steps whose outputs cannot change."""


@dataclass
class Measured:
    """The columns by kind of mutant, the number of mutants by kind, and what was wrong, as lines."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    mutants: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    false_hits: list[str] = field(default_factory=list)
    avoidable: list[str] = field(default_factory=list)
    uncacheable: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Measured") -> None:
        for kind, counts in other.counts.items():
            self.counts.setdefault(kind, Counter()).update(counts)
        self.mutants += other.mutants
        self.refused += other.refused
        self.false_hits += other.false_hits
        self.avoidable += other.avoidable

    def total(self, *kinds: str) -> Counter[str]:
        return sum((one for kind, one in self.counts.items() if not kinds or kind in kinds), Counter())

    @property
    def hits_of_unchanged(self) -> float:
        """Of the steps whose outputs cannot change."""
        total = self.total()
        return total["true hits"] / max(1, total["true hits"] + total["avoidable"])

    @property
    def missed(self) -> list[str]:
        """The targets that were missed."""
        found = []
        if count := self.total()["false hits"]:
            found.append(f"{count} false hits, and there must be none")
        if self.hits_of_unchanged < MIN_HITS:
            found.append(
                f"{self.hits_of_unchanged:.1%} of the steps whose outputs cannot change are hits, not {MIN_HITS:.0%}"
            )
        found += [
            f"{kind}: {misses} misses, and there must be none"
            for kind in NEUTRAL
            if (misses := self.total(kind)["avoidable"] + self.total(kind)["true misses"])
        ]
        return found


def measure(
    count: int, seed: int, kinds: frozenset[str] = frozenset(), workers: int = os.cpu_count() or 1
) -> Measured:
    """Draw the mutants, and look at each in one of several processes. Raises RuntimeError if the base does not run or differs."""
    sys.dont_write_bytecode = True  # mutants of the same size within a second would share it
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="key-mutants-") as name:
        workers = max(1, min(workers, count // 10))
        pipes = [
            _in_worker(lambda each=each: _measured(Path(name) / f"{each}", count, seed, kinds, each, workers))
            for each in range(workers)
        ]
        results = [each() for each in pipes]
    found = results[0]
    for other in results[1:]:
        found.add(other)
    return found


def _measured(
    folder: Path, count: int, seed: int, kinds: frozenset[str], worker: int, workers: int
) -> Measured:
    folder.mkdir()
    machine = Machine(folder)
    files = project(seed)
    base = Version(files, PACKAGES, pinned(files))
    compiled = machine.compile(base)
    if compiled is None:
        raise RuntimeError("the base does not compile")
    ran = machine.run(compiled, base, lambda _: True, {})
    again = machine.run(compiled, base, lambda _: worker == 0, ran)
    for name, one in ran.items():
        if one.failed or one.digest != again[name].digest:
            raise RuntimeError(
                f"{name} of the base fails, or gives other outputs when it runs again: {one.failed}"
            )
    look = Look(machine, compiled, ran, Cache(compiled, ran))
    found = Measured(uncacheable=look.cache.uncacheable)
    for number, mutant in enumerate(draw(base, count, seed, kinds)):
        if number % workers == worker:
            look.at(mutant, found)
    machine.close()
    return found


@dataclass
class Look:
    """Compares a mutant with the base."""

    machine: Machine
    base: Compiled
    ran: dict[str, Ran]
    cache: Cache

    def at(self, mutant: Mutant, found: Measured) -> None:
        found.mutants[mutant.kind] += 1
        counts = found.counts.setdefault(mutant.kind, Counter())
        compiled = self.machine.compile(mutant.version)
        if compiled is None:
            found.refused[mutant.kind] += 1
            return
        ran = self.machine.run(compiled, mutant.version, self._affected(mutant), self.ran)
        unused: set[str] | None = None
        for task in compiled.tasks:
            name = task["name"]
            if name not in ran or name in self.cache.uncacheable:
                continue
            is_equal = ran[name].digest == self.ran[name].digest
            if self.cache.is_hit(compiled, task, ran[name]):
                column = "true hits" if is_equal else "false hits"
            elif not is_equal:
                column = "true misses"
            elif name in self.everything:
                column = "equal"
            else:
                unused = self._unused(mutant) if unused is None else unused
                has_same_inputs = (ran[name].parameters, ran[name].artifacts) == (
                    self.ran[name].parameters,
                    self.ran[name].artifacts,
                )
                column = "avoidable" if name in unused and has_same_inputs else "equal"
            counts[column] += 1
            line = f"{mutant.kind}: {name}: {mutant.what}"
            if column == "false hits":
                found.false_hits.append(
                    f"{line}: {self.ran[name].outputs} became {ran[name].failed[-200:] or ran[name].outputs}"
                )
            elif column == "avoidable":
                found.avoidable.append(line)

    def _affected(self, mutant: Mutant) -> Callable[[str], bool]:
        """Which steps could end otherwise: those whose process opened the file in the base; all if it is not a file of the base's."""
        if mutant.kind == "parameter":
            return lambda _: False
        if mutant.file not in self.opened or mutant.file.endswith(".txt"):
            return lambda _: True
        return lambda name: name not in self.ran or mutant.file in self.ran[name].opened

    @cached_property
    def everything(self) -> set[str]:
        """The steps that use all code of the project: another process that they started might."""
        return {name for name, one in self.ran.items() if f'"{EVERYTHING}"' in one.report}

    @cached_property
    def opened(self) -> set[str]:
        return {file for one in self.ran.values() for file in one.opened}

    def _unused(self, mutant: Mutant) -> set[str]:
        """The steps that do not use what was edited."""
        if mutant.kind in NEUTRAL:
            return set(self.ran)
        if mutant.probe is None:
            return (
                set(self.ran)
                if mutant.kind in ("new function", "order of imports", "installed package", "environment")
                else set()
            )
        compiled = self.machine.compile(mutant.probe)
        if compiled is None:
            return set()
        ran = self.machine.run(compiled, mutant.probe, self._affected(mutant), self.ran)
        return {name for name, one in ran.items() if one.digest and one.digest == self.ran[name].digest}


def _in_worker(call: Callable[[], Measured]) -> Callable[[], Measured]:
    """Start a call in a fork; the result waits for it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            result: Measured | str = call()
        except Exception as error:  # noqa: BLE001 - it is raised again by the caller
            result = repr(error)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writing)

    def wait() -> Measured:
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
        os.waitpid(child, 0)
        result = pickle.loads(data) if data else "a worker was ended by a signal"
        if isinstance(result, str):
            raise RuntimeError(result)  # noqa: TRY004 - it is the text of an error
        return result

    return wait


def show(found: Measured, seconds: float, is_verbose: bool) -> None:
    print(f"{'kind':20} {'mutants':>8} {'refused':>8} " + " ".join(f"{one:>11}" for one in COLUMNS))
    rows = [
        (kind, found.mutants[kind], found.refused[kind], found.counts[kind]) for kind in sorted(found.counts)
    ]
    rows.append(("all", found.mutants.total(), found.refused.total(), found.total()))
    for kind, mutants, refused, counts in rows:
        print(f"{kind:20} {mutants:8} {refused:8} " + " ".join(f"{counts[one]:11}" for one in COLUMNS))
    print(
        f"\n{found.hits_of_unchanged:.2%} of the steps whose outputs cannot change are hits; {seconds:.0f} s"
    )
    for step, reason in found.uncacheable.items():
        print(f"{step} is not cached: {reason}")
    for line in found.false_hits if is_verbose else found.false_hits[:10]:
        print(f"FALSE HIT {line}")
    for line in found.avoidable if is_verbose else ():
        print(f"avoidable {line}")
    for line in found.missed:
        print(f"MISSED: {line}")


def main(count: int, seed: int, is_verbose: bool) -> int:
    """Measure and print. The exit code is 1 if a target is missed."""
    began = time.perf_counter()
    found = measure(count, seed)
    show(found, time.perf_counter() - began, is_verbose)
    return bool(found.missed)


if __name__ == "__main__":
    numbers = [int(one) for one in sys.argv[1:] if one != "-v"]
    sys.exit(main(*[*numbers, *(2000, 1)[len(numbers) :]], "-v" in sys.argv))
