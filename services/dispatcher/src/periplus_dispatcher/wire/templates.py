"""Adopted templates."""

import json

from periplus.dispatcher.v1 import dispatcher_pb2 as pb
from periplus.types.v1 import step_pb2
from periplus_dispatcher.template_adoption import AdoptedTemplate, TemplateKind

_KINDS = {
    pb.TEMPLATE_KIND_WORKFLOW_TEMPLATE: TemplateKind.WORKFLOW_TEMPLATE,
    pb.TEMPLATE_KIND_CRON_WORKFLOW: TemplateKind.CRON_WORKFLOW,
}


def decode_name(message: pb.TemplateName) -> tuple[str, str, TemplateKind, str]:
    """Project, namespace, kind and name."""
    return message.project, message.namespace, _KINDS[message.kind], message.name


def encode_adopted_template(found: AdoptedTemplate) -> pb.AdoptTemplateResponse:
    response = pb.AdoptTemplateResponse(
        namespace=found.namespace, before=json.dumps(found.before), after=json.dumps(found.after)
    )
    for step in found.plan.steps if found.plan else ():
        if not step.call.is_expanded:
            response.steps.add(
                path=step.call.path,
                template=step.call.template,
                verdict=step_pb2.Verdict.ValueType(step.verdict.verdict),
                reason=step.verdict.reason,
                depends_on=step.call.depends_on,
            )
    return response


def encode_released_template(found: AdoptedTemplate) -> pb.ReleaseTemplateResponse:
    return pb.ReleaseTemplateResponse(
        namespace=found.namespace, before=json.dumps(found.before), after=json.dumps(found.after)
    )
