"""Whether the Secrets and ConfigMaps that steps get are those of which the steps' keys have versions."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from periplus_dispatcher.domain import ConfigObject, ContainerTemplate, Run, StepStatus
from periplus_dispatcher.ports import ConfigObjects
from periplus_model.steps import StepPhase, StepTemplate

log = logging.getLogger(__name__)

CHANGED = (
    "the {} was written after the run was planned, so that its key may have another version than what it gets"
)
NOT_READ = "the {} could not be read again, so that its key may have another version than what it gets"


async def check_config(
    run: Run, steps: Sequence[StepStatus], objects: ConfigObjects | None
) -> list[StepStatus]:
    """The statuses; a step that may have got other data than its key says is not to be cached.

    Objects are read after the steps have ended. One that has the resource version of the plan was not written in between,
    also not twice, so every attempt got what the key says, as soon as its node knew of it.
    """
    ended = [step for step in steps if step.phase is StepPhase.SUCCEEDED]
    used = {step.path: run.state.templates.get(step.template) for step in ended}
    reasons = await _reasons(run, [template for template in used.values() if template], objects)
    return [
        replace(step, uncacheable_reason=step.uncacheable_reason or _first(used.get(step.path), reasons))
        for step in steps
    ]


async def with_current_config(
    run: Run, templates: Mapping[str, ContainerTemplate], objects: ConfigObjects | None
) -> dict[str, StepTemplate]:
    """The templates for questions to the cache; one whose data changed since the plan can not be cached: its step runs."""
    reasons = await _reasons(run, templates.values(), objects)
    return {
        name: replace(
            template.step, uncacheable_reason=template.step.uncacheable_reason or _first(template, reasons)
        )
        for name, template in templates.items()
    }


def _first(template: ContainerTemplate | None, reasons: Mapping[str, str]) -> str:
    """The first reason of a template's objects; empty if there is none."""
    return next((reasons[each] for each in (template.config if template else ()) if each in reasons), "")


async def _reasons(
    run: Run, templates: Iterable[ContainerTemplate], objects: ConfigObjects | None
) -> dict[str, str]:
    """Why what is recorded or served may not be what the keys say, by the id of the object."""
    planned = run.state.config if run.observed is None else {}
    used = {each for template in templates for each in template.config if each in planned}
    if not used:
        return {}
    named = {each: ConfigObject(*each.split("/", 1)) for each in used}
    found = await objects.resource_versions(named.values()) if objects else {}
    reasons = {}
    for each in sorted(used):
        if found.get(each) != planned[each]:
            reasons[each] = (CHANGED if each in found else NOT_READ).format(named[each])
            log.warning("%s: not cached: %s", run.id, reasons[each])
    return reasons
