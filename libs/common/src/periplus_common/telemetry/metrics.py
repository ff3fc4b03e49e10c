"""Metric instruments: each is declared once, named by OpenTelemetry's conventions, and listed in docs/telemetry.md."""

from dataclasses import dataclass

from opentelemetry import metrics
from opentelemetry.metrics import Counter, Histogram

from periplus_common.markdown import replace_between

meter = metrics.get_meter("periplus")

TABLE_BEGIN, TABLE_END = "<!-- metrics: written by `make metrics` -->", "<!-- /metrics -->"


@dataclass(frozen=True)
class Instrument:
    """What the table says of an instrument."""

    name: str
    kind: str
    unit: str
    description: str
    attributes: tuple[str, ...]


_declared: dict[str, Instrument] = {}


def counter(name: str, *, unit: str, description: str, attributes: tuple[str, ...] = ()) -> Counter:
    """A sum that only grows. `unit` is UCUM: `s`, `By`, `{row}`."""
    _declare(Instrument(name, "counter", unit, description, attributes))
    return meter.create_counter(name, unit=unit, description=description)


def histogram(name: str, *, unit: str, description: str, attributes: tuple[str, ...] = ()) -> Histogram:
    """A distribution; of durations in seconds, with buckets from 5 ms to 10 s as the conventions say."""
    _declare(Instrument(name, "histogram", unit, description, attributes))
    return meter.create_histogram(
        name,
        unit=unit,
        description=description,
        explicit_bucket_boundaries_advisory=_SECONDS if unit == "s" else None,
    )


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


def gauge(
    name: str, *, unit: str, description: str, attributes: tuple[str, ...] = ()
) -> "metrics._Gauge":  # the API exports the factory and not the type
    """A value that was measured last."""
    _declare(Instrument(name, "gauge", unit, description, attributes))
    return meter.create_gauge(name, unit=unit, description=description)


def _declare(instrument: Instrument) -> None:
    if _declared.setdefault(instrument.name, instrument) != instrument:
        raise ValueError(f"the metric {instrument.name} is declared twice, and differently")


def table() -> str:
    """All instruments that were declared so far, as a Markdown table."""
    lines = ["| Metric | Kind | Unit | Attributes | What it measures |", "|---|---|---|---|---|"]
    for instrument in sorted(_declared.values(), key=lambda each: each.name):
        attributes = ", ".join(f"`{name}`" for name in instrument.attributes)
        lines.append(
            f"| `{instrument.name}` | {instrument.kind} | {instrument.unit} | {attributes} | {instrument.description} |"
        )
    return "\n".join(lines)


def with_table(text: str) -> str:
    """A document with the table between its two markers. Raises `ValueError` where it has none."""
    return replace_between(text, TABLE_BEGIN, TABLE_END, f"\n{table()}\n")
