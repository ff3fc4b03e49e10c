"""A plan as it is asked about: its steps, and where the values of their inputs come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from periplus_cache.domain import Outputs, Place, Template, Verdict
from periplus_common.errors import Invalid


@dataclass(frozen=True, slots=True)
class Literal:
    """Text as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class OutputRef:
    """An output of an earlier step: the one named, or with `result` its standard output."""

    step: str
    name: str
    result: bool = False

    def called(self) -> str:
        """The output, for people."""
        return "result" if self.result else f"output {self.name!r}"


@dataclass(frozen=True, slots=True)
class Item:
    """The item of the step's fan-out, or its member of this name."""

    member: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """What appears only mid-run."""

    what: str


@dataclass(frozen=True, slots=True)
class Object:
    """An object that exists now."""

    place: Place


@dataclass(frozen=True, slots=True)
class Raw:
    """The bytes themselves."""

    text: str


Part = Literal | OutputRef | Item | Unknown
Text = tuple[Part, ...]
Source = OutputRef | Object | Raw | Unknown


@dataclass(frozen=True, slots=True)
class StepQuery:
    """One step: its template, where its inputs come from and, for a fan-out, where its items do."""

    id: str
    template: str
    parameters: tuple[tuple[str, Text], ...] = ()
    artifacts: tuple[tuple[str, Source], ...] = ()
    items: Text | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked. Steps come after those they refer to."""

    project: str
    templates: Mapping[str, Template]
    steps: tuple[StepQuery, ...]

    def check(self) -> None:
        """Raise `Invalid`, with the field's path, where the plan contradicts itself."""
        before: set[str] = set()
        for index, step in enumerate(self.steps):
            at = f"steps[{index}]"
            if step.id in before:
                raise Invalid(f"another step has the id {step.id!r}", field=f"{at}.id", reason="STEP_TWICE")
            if step.template not in self.templates:
                raise Invalid(
                    f"there is no template {step.template!r}",
                    field=f"{at}.template",
                    reason="TEMPLATE_UNKNOWN",
                )
            for path, ref in _references(step):
                if ref.step not in before:
                    raise Invalid(
                        f"refers to {ref.step!r}, which is no earlier step",
                        field=f"{at}.{path}", reason="STEP_UNKNOWN",
                    )  # fmt: skip
                if not ref.name and not ref.result:
                    raise Invalid("names no output", field=f"{at}.{path}.name", reason="OUTPUT_MISSING")
            _check_items(step, at)
            _check_names(step, at)
            before.add(step.id)

    def wanted(self) -> Mapping[str, frozenset[OutputRef]]:
        """The parameters and results of each step that later steps refer to."""
        found: dict[str, set[OutputRef]] = {}
        for step in self.steps:
            for text in (*(text for _, text in step.parameters), step.items or ()):
                for part in text:
                    if isinstance(part, OutputRef):
                        found.setdefault(part.step, set()).add(part)
        return {step: frozenset(refs) for step, refs in found.items()}


def _references(step: StepQuery) -> list[tuple[str, OutputRef]]:
    found = [
        (f"parameters[{i}].value.parts[{j}].output", part)
        for i, (_, text) in enumerate(step.parameters)
        for j, part in enumerate(text)
        if isinstance(part, OutputRef)
    ]
    found += [
        (f"items.parts[{j}].output", part)
        for j, part in enumerate(step.items or ())
        if isinstance(part, OutputRef)
    ]
    found += [
        (f"artifacts[{i}].output", source)
        for i, (_, source) in enumerate(step.artifacts)
        if isinstance(source, OutputRef)
    ]
    return found


def _check_items(step: StepQuery, at: str) -> None:
    texts = [(f"items.parts[{j}]", part) for j, part in enumerate(step.items or ())]
    if step.items is None:
        texts = [
            (f"parameters[{i}].value.parts[{j}]", part)
            for i, (_, text) in enumerate(step.parameters)
            for j, part in enumerate(text)
        ]
    for path, part in texts:
        if isinstance(part, Item):
            raise Invalid("an item stands where there is none", field=f"{at}.{path}", reason="ITEM_MISPLACED")


def _check_names(step: StepQuery, at: str) -> None:
    for what, names in (
        ("parameters", [name for name, _ in step.parameters]),
        ("artifacts", [name for name, _ in step.artifacts]),
    ):
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen:
                raise Invalid(
                    f"{name!r} is given twice", field=f"{at}.{what}[{index}].name", reason="INPUT_TWICE"
                )
            seen.add(name)


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """What is known of one step, or of one item of a fan-out."""

    id: str
    verdict: Verdict
    reason: str = ""
    fingerprint: str = ""
    outputs: Outputs | None = None
    run: str = ""
    step: str = ""
    saved_us: int = 0
    items: tuple["StepVerdict", ...] = field(default=())
    items_json: str = ""
