"""The exit handler of a workflow: what it costs in a run whose steps are all cached, and whether it must run there."""

from collections.abc import Iterator, Mapping

from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.calls import ExitHandler, is_invocator, is_loop, items_of
from periplus_dispatcher.manifest.policy import read_on_exit

_WITHOUT_POD = ("suspend", "http", "plugin")


def exit_handler(spec: Json, annotations: Json) -> ExitHandler | None:
    """The exit handler of a checked workflow. A template's annotations override those of the workflow, `annotations`.

    Raises `Invalid` with the field's path.
    """
    names = tuple(dict.fromkeys(_names(spec)))
    if not names:
        return None
    templates = {t["name"]: (index, t) for index, t in enumerate(spec.get("templates") or ())}
    counts: dict[str, tuple[int, bool]] = {}
    of_workflow = read_on_exit(annotations, "metadata.annotations")
    is_optional, pods, is_exact = True, 0, True
    for name in names:
        index, template = templates.get(name, (0, {}))
        own = (template.get("metadata") or {}).get("annotations") or {}
        policy = read_on_exit(own, f"spec.templates[{index}].metadata.annotations") or of_workflow
        is_optional = is_optional and policy == "if-run"
        count, counted = _pods(name, templates, counts)
        pods, is_exact = pods + count, is_exact and counted
    return ExitHandler(names, pods, is_exact, is_optional)


def _names(spec: Json) -> Iterator[str]:
    if spec.get("onExit"):
        yield spec["onExit"]
    if hook := (spec.get("hooks") or {}).get("exit"):
        yield hook.get("template") or (hook.get("templateRef") or {}).get("template", "")


def _pods(
    name: str, templates: Mapping[str, tuple[int, Json]], counts: dict[str, tuple[int, bool]]
) -> tuple[int, bool]:
    """How many pods a call of a template starts, and whether that is exact; `counts` are those that are known."""
    if name not in templates:
        return 1, False
    if name not in counts:
        counts[name] = 0, False  # while it is counted: a recursion starts more
        _, template = templates[name]
        if is_invocator(template):
            pods, is_exact = 0, True
            groups = [items_of(template, "dag", "tasks"), *(template.get("steps") or ())]
            for call in (call for group in groups for call in group):
                count, counted = _pods(call.get("template", ""), templates, counts)
                runs_once = not is_loop(call) and not call.get("when")
                pods, is_exact = pods + count, is_exact and counted and runs_once
            counts[name] = pods, is_exact
        else:
            starts_pod = not any(kind in template for kind in _WITHOUT_POD)
            counts[name] = int(starts_pod), not template.get("retryStrategy")
    return counts[name]
