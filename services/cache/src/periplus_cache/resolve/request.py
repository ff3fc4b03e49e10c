"""A ResolveSteps request: the steps to look up and their templates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from periplus_cache.domain import restricted
from periplus_common.errors import Invalid
from periplus_common.pauses import Pauses
from periplus_model.queries import Item, OutputRef, StepQuery
from periplus_model.steps import CacheMode, StepTemplate


@dataclass(frozen=True, slots=True)
class ResolveRequest:
    """Steps to look up, each after the steps that it refers to. `run_mode` restricts the policy of every template.

    `code_index` has the digest of each name of the run's code. `run` holds the leases that steps ask for; empty for a plan.
    """

    project: str
    templates: Mapping[str, StepTemplate]
    steps: tuple[StepQuery, ...]
    run_mode: CacheMode | None = None
    code_index: Mapping[str, str] = field(default_factory=dict)
    run: str = ""

    def restricted(self) -> "ResolveRequest":
        """The same request with the run's cache mode applied to each template."""
        if self.run_mode is None:
            return self
        templates = {name: restricted(template, self.run_mode) for name, template in self.templates.items()}
        return replace(self, templates=templates, run_mode=None)

    async def check(self, pauses: Pauses) -> None:
        """Raise `Invalid`, with the field's path, if a step refers to something that the request does not have."""
        earlier: set[str] = set()
        for index, step in enumerate(self.steps):
            await pauses.take()
            at = f"steps[{index}]"
            if step.id in earlier:
                raise Invalid(f"another step has the id {step.id!r}", field=f"{at}.id", reason="STEP_TWICE")
            if step.template not in self.templates:
                raise Invalid(
                    f"there is no template {step.template!r}",
                    field=f"{at}.template",
                    reason="TEMPLATE_UNKNOWN",
                )
            for path, ref in _output_refs(step):
                if ref.step not in earlier:
                    raise Invalid(
                        f"refers to {ref.step!r}, which is no earlier step",
                        field=f"{at}.{path}",
                        reason="STEP_UNKNOWN",
                    )
                if not ref.name and not ref.result:
                    raise Invalid("names no output", field=f"{at}.{path}.name", reason="OUTPUT_MISSING")
            _check_items(step, at)
            earlier.add(step.id)

    async def required_outputs(self, pauses: Pauses) -> Mapping[str, frozenset[OutputRef]]:
        """By step: its parameters and results that later steps refer to."""
        found: dict[str, set[OutputRef]] = {}
        for step in self.steps:
            await pauses.take()
            for text in (*step.parameters.values(), step.items or ()):
                for part in text:
                    if isinstance(part, OutputRef):
                        found.setdefault(part.step, set()).add(part)
        return {step: frozenset(refs) for step, refs in found.items()}


def _output_refs(step: StepQuery) -> Iterator[tuple[str, OutputRef]]:
    for i, text in enumerate(step.parameters.values()):
        for j, part in enumerate(text):
            if isinstance(part, OutputRef):
                yield f"parameters[{i}].value.parts[{j}].output", part
    for j, part in enumerate(step.items or ()):
        if isinstance(part, OutputRef):
            yield f"items.parts[{j}].output", part
    for i, source in enumerate(step.artifacts.values()):
        if isinstance(source, OutputRef):
            yield f"artifacts[{i}].output", source


def _check_items(step: StepQuery, at: str) -> None:
    """Raise `Invalid` if an item is used where there is none: outside of a fan-out, or in the text of its items."""
    parts = [(f"items.parts[{j}]", part) for j, part in enumerate(step.items or ())]
    if step.items is None:
        parts = [
            (f"parameters[{i}].value.parts[{j}]", part)
            for i, text in enumerate(step.parameters.values())
            for j, part in enumerate(text)
        ]
    for path, part in parts:
        if isinstance(part, Item):
            raise Invalid(
                "an item is used where there is none", field=f"{at}.{path}", reason="ITEM_MISPLACED"
            )
