"""Library templates: read once for a plan, copied into the workflow, part of the keys; a bad reference names its field."""

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import pytest
import yaml
from fakes import MemoryCache, MemorySnapshotter, MemoryTemplates
from manifests import ANY_KEYS, PROCESSES, dag, gives, say, sh, shows, steps, task, workflow

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import RunRequest
from periplus_dispatcher.manifest.library import LibraryBounds
from periplus_dispatcher.planner import PlannedRun, Planner
from periplus_model.steps import Verdict

Json = dict[str, Any]
TASK = "spec.manifest.spec.templates[0].dag.tasks[0].templateRef"


def template(name: str, *templates: Json, cluster: bool = False, **more: Any) -> Json:
    """A library object."""
    metadata = {"name": name, **more.pop("metadata", {})}
    kind = "ClusterWorkflowTemplate" if cluster else "WorkflowTemplate"
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": {"templates": list(templates), **more},
    }


def ref(name: str, library: str, of: str, cluster: bool = False, **more: Any) -> Json:
    """A task that calls a library template."""
    found = task(name, "", **more)
    del found["template"]
    reference = {"name": library, "template": of, **({"clusterScope": True} if cluster else {})}
    return found | {"templateRef": reference}


def whole(library: str, cluster: bool = False, **spec: Any) -> Json:
    """A workflow whose spec is that of a library object."""
    reference = {"name": library, **({"clusterScope": True} if cluster else {})}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "ref-"},
        "spec": {"workflowTemplateRef": reference, **spec},
    }


class Library:
    """A planner with library objects."""

    def __init__(self, *objects: Json, bounds: LibraryBounds | None = None) -> None:
        self.templates = MemoryTemplates()
        for each in objects:
            is_cluster = each["kind"] == "ClusterWorkflowTemplate"
            self.templates.objects[each["metadata"]["name"], is_cluster] = each
        self.cache, self.snapshotter = MemoryCache(), MemorySnapshotter()
        self.planner = Planner(self.cache, self.snapshotter, self.templates, PROCESSES, ANY_KEYS, bounds)

    def plan(self, manifest: Json | str, **parameters: str) -> PlannedRun:
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        return asyncio.run(self.planner.plan(RunRequest("p", text, parameters, None, None)))


def verdicts(planned: PlannedRun) -> dict[str, Verdict]:
    return {step.call.path: step.verdict.verdict for step in planned.plan.steps if not step.call.is_expanded}


def templates_of(planned: PlannedRun) -> dict[str, Json]:
    return {each["name"]: each for each in planned.manifest["spec"]["templates"]}


def refused(library: Library, manifest: Json | str, **parameters: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        library.plan(manifest, **parameters)
    return caught.value


PREPARE, TRAIN = say("prepare", "1"), say("train", "<$x>", "x")
LIB = template("lib.v1", PREPARE, TRAIN)
CALLS = dag(
    ref("a", "lib.v1", "prepare"),
    ref("b", "lib.v1", "train", depends="a", given={"x": "{{tasks.a.outputs.parameters.o}}"}),
    outputs=shows("tasks.b.outputs.parameters.o"),
)


def test_library_templates_are_copied_and_their_steps_are_looked_up() -> None:
    planned = Library(LIB).plan(workflow(CALLS))
    assert verdicts(planned) == {"a": Verdict.MISS, "b": Verdict.UNKNOWN}
    found = templates_of(planned)
    assert list(found) == ["main", "lib-v1--prepare", "lib-v1--train"]
    for name, original in (("lib-v1--prepare", PREPARE), ("lib-v1--train", TRAIN)):
        assert found[name] == {**original, "name": name}
    assert [t["template"] for t in found["main"]["dag"]["tasks"]] == ["lib-v1--prepare", "lib-v1--train"]
    assert "templateRef" not in json.dumps(planned.manifest)
    assert planned.source == workflow(CALLS)


def test_an_object_is_read_once_for_a_plan() -> None:
    inner = template("inner", say("leaf", "1"))
    outer = template("outer", dag(*(ref(n, "inner", "leaf") for n in "abc"), name="all"), PREPARE)
    library = Library(inner, outer)
    library.plan(workflow(dag(*(ref(n, "outer", "all") for n in "xyz"), ref("p", "outer", "prepare"))))
    assert library.templates.read == [("outer", False), ("inner", False)]


def test_a_template_of_the_cluster_is_another_one_than_that_of_the_namespace() -> None:
    library = Library(template("lib", say("t", "1")), template("lib", say("t", "2"), cluster=True))
    found = templates_of(
        library.plan(workflow(dag(ref("a", "lib", "t"), ref("b", "lib", "t", cluster=True))))
    )
    assert [t["template"] for t in found["main"]["dag"]["tasks"]] == ["lib--t", "lib--t-2"]
    assert "1" in found["lib--t"]["container"]["args"][0]
    assert "2" in found["lib--t-2"]["container"]["args"][0]


def test_names_inside_of_a_library_mean_its_own_templates() -> None:
    pipeline = steps(
        [task("p", "prepare")],
        [task("t", "train", given={"x": "{{steps.p.outputs.parameters.o}}"}, onExit="clean")],
        name="pipeline",
        outputs=shows("steps.t.outputs.parameters.o"),
    )
    mine = say("prepare", "mine")
    planned = Library(template("lib", pipeline, PREPARE, TRAIN, sh("clean", "true"))).plan(
        workflow(dag(ref("l", "lib", "pipeline"), task("m", "prepare")), mine)
    )
    found = templates_of(planned)
    assert found["prepare"] == mine
    called = found["lib--pipeline"]["steps"]
    assert [group[0]["template"] for group in called] == ["lib--prepare", "lib--train"]
    assert called[1][0]["onExit"] == "lib--clean"
    assert verdicts(planned) == {"l.p": Verdict.MISS, "l.t": Verdict.UNCACHEABLE, "m": Verdict.MISS}


def test_a_name_that_is_taken_is_not_used_for_a_copy() -> None:
    mine = say("lib--t", "mine")
    found = templates_of(Library(template("lib", say("t", "its"))).plan(
        workflow(dag(ref("a", "lib", "t"), task("b", "lib--t")), mine)
    ))  # fmt: skip
    assert found["lib--t"] == mine
    assert found["main"]["dag"]["tasks"][0]["template"] == "lib--t-2"
    assert found["main"]["dag"]["tasks"][1]["template"] == "lib--t"


def test_hooks_and_inline_templates_refer_to_copies() -> None:
    inline = {"name": "i", "inline": dag(ref("x", "lib", "t"), name="")}
    hooked = task("h", "own", hooks={"exit": {"templateRef": {"name": "lib", "template": "u"}}})
    manifest = workflow(
        dag(inline, hooked),
        say("own", "1"),
        hooks={"exit": {"templateRef": {"name": "lib", "template": "u"}}},
    )
    planned = Library(template("lib", say("t", "1"), say("u", "2"))).plan(manifest)
    tasks = templates_of(planned)["main"]["dag"]["tasks"]
    assert tasks[0]["inline"]["dag"]["tasks"][0]["template"] == "lib--t"
    assert tasks[1]["hooks"]["exit"] == {"template": "lib--u"}
    assert planned.manifest["spec"]["hooks"]["exit"] == {"template": "lib--u"}


def test_a_template_that_was_edited_is_another_step_and_in_the_snapshot() -> None:
    library = Library(LIB)
    planned = library.plan(workflow(CALLS))
    key = planned.expanded.templates["lib-v1--prepare"].step.document
    ((name, before),) = library.snapshotter.templates
    assert name == "WorkflowTemplate/lib.v1"
    assert json.loads(before)["spec"]["templates"] == [PREPARE, TRAIN]
    library.templates.objects["lib.v1", False] = template("lib.v1", say("prepare", "2"), TRAIN)
    edited = library.plan(workflow(CALLS))
    assert edited.expanded.templates["lib-v1--prepare"].step.document != key
    assert edited.expanded.templates["lib-v1--train"] == planned.expanded.templates["lib-v1--train"]
    ((_, after),) = library.snapshotter.templates
    assert after != before


def test_what_kubernetes_adds_to_an_object_is_not_in_the_snapshot() -> None:
    library = Library(LIB)
    library.plan(workflow(CALLS))
    before = library.snapshotter.templates
    metadata = {"resourceVersion": "7", "uid": "u", "managedFields": [{}], "creationTimestamp": None}
    library.templates.objects["lib.v1", False] = {**LIB, "metadata": {**LIB["metadata"], **metadata}}
    library.plan(workflow(CALLS))
    assert library.snapshotter.templates == before


def test_the_same_step_by_reference_and_in_the_workflow_has_one_key() -> None:
    own = Library().plan(workflow(dag(task("a", "prepare")), PREPARE)).expanded.templates["prepare"]
    copied = Library(LIB).plan(workflow(CALLS)).expanded.templates["lib-v1--prepare"]
    assert own.step.document == copied.step.document


def test_pod_metadata_and_our_annotations_of_the_object_are_those_of_its_templates() -> None:
    lib = template(
        "lib",
        say("t", "1", metadata={"labels": {"a": "mine"}}),
        podMetadata={"labels": {"a": "its", "b": "its"}, "annotations": {"c": "its"}},
        metadata={"annotations": {"periplus.dev/side-effects": "true", "other": "x"}},
    )
    planned = Library(lib).plan(workflow(dag(ref("a", "lib", "t"))))
    assert templates_of(planned)["lib--t"]["metadata"] == {
        "labels": {"a": "mine", "b": "its"},
        "annotations": {"periplus.dev/side-effects": "true", "c": "its"},
    }
    assert verdicts(planned) == {"a": Verdict.UNCACHEABLE}


PIPELINE = template(
    "pipe",
    dag(
        task("p", "prepare"),
        task("t", "train", depends="p", given={"x": "{{workflow.parameters.k}}"}),
        name="pipeline",
        outputs=shows("tasks.t.outputs.parameters.o"),
    ),
    PREPARE,
    TRAIN,
    entrypoint="pipeline",
    arguments={"parameters": [{"name": "k", "value": "7"}, {"name": "open"}]},
)


def test_a_workflow_with_workflow_template_ref_is_that_of_its_template() -> None:
    planned = Library(PIPELINE).plan(whole("pipe"), open="1")
    assert verdicts(planned) == {"p": Verdict.MISS, "t": Verdict.MISS}
    assert planned.manifest["spec"]["templates"] == PIPELINE["spec"]["templates"]
    assert planned.manifest["metadata"]["labels"] == {"workflows.argoproj.io/workflow-template": "pipe"}
    assert planned.parameters == {"k": "7", "open": "1"}
    own = {"parameters": [{"name": "k", "value": "8"}, {"name": "open", "value": ""}]}
    assert Library(PIPELINE).plan(whole("pipe", arguments=own)).parameters == {"k": "8", "open": ""}


def test_the_label_of_a_cluster_template_is_its_own() -> None:
    cluster = {**PIPELINE, "kind": "ClusterWorkflowTemplate"}
    planned = Library(cluster).plan(whole("pipe", cluster=True), open="1")
    assert planned.manifest["metadata"]["labels"] == {
        "workflows.argoproj.io/cluster-workflow-template": "pipe"
    }


def test_a_parameter_that_neither_has_is_refused() -> None:
    error = refused(Library(PIPELINE), whole("pipe"), open="1", rate="1")
    assert error.field == "spec.parameters[rate]"
    assert "it has: k, open" in error.message


def test_a_required_parameter_of_the_template_without_a_value_is_refused_with_its_place() -> None:
    error = refused(Library(PIPELINE), whole("pipe"))
    assert error.field == "spec.manifest.spec.workflowTemplateRef"
    assert error.message.startswith("WorkflowTemplate pipe: spec.arguments")


@pytest.mark.parametrize(
    ("manifest", "field", "message", "fix"),
    [
        (workflow(dag(ref("a", "none", "t"))), f"{TASK}.name", "there is no WorkflowTemplate none in the namespace argo",
         "create it, or add the WorkflowTemplate to the file"),
        (workflow(dag(ref("a", "none", "t", cluster=True))), f"{TASK}.name",
         "there is no ClusterWorkflowTemplate none in the cluster", "create it, or add the ClusterWorkflowTemplate"),
        (workflow(dag(ref("a", "lib.v1", "test"))), f"{TASK}.template",
         "the WorkflowTemplate lib.v1 has no template test; it has: prepare, train", ""),
        (workflow(dag(ref("a", "../secrets", "t"))), f"{TASK}.name", "'../secrets' is not a Kubernetes name", ""),
        (whole("none"), "spec.manifest.spec.workflowTemplateRef.name",
         "there is no WorkflowTemplate none in the namespace argo", "create it, or add the WorkflowTemplate to the file"),
    ],
)  # fmt: skip
def test_a_reference_to_nothing_names_the_field_and_the_fix(
    manifest: Json, field: str, message: str, fix: str
) -> None:
    error = refused(Library(LIB), manifest)
    assert (error.field, error.message) == (field, message)
    assert error.fix.startswith(fix)


def test_a_reference_inside_of_a_library_to_nothing_names_the_users_field() -> None:
    library = Library(template("outer", dag(ref("x", "gone", "t"), name="d")))
    error = refused(library, workflow(dag(ref("a", "outer", "d"))))
    assert error.field == f"{TASK}.name"
    assert error.message == "there is no WorkflowTemplate gone in the namespace argo"


def test_templates_that_call_each_other_in_a_circle_are_refused() -> None:
    library = Library(
        template("one", dag(ref("x", "two", "b"), name="a")),
        template("two", dag(task("y", "c"), name="b"), dag(ref("z", "one", "a"), name="c")),
    )
    error = refused(library, workflow(dag(ref("first", "one", "a"))))
    assert error.field == TASK
    assert error.reason == "TEMPLATES_IN_A_CIRCLE"
    assert (
        "one/a -> two/b -> two/c -> one/a" in error.message
        or "two/b -> two/c -> one/a -> two/b" in error.message
    )
    assert "`when`" in error.fix


def test_a_recursion_with_a_condition_is_planned() -> None:
    again = ref("again", "flip", "coin", depends="toss", when="{{tasks.toss.outputs.parameters.o}} == 1")
    planned = Library(template("flip", dag(task("toss", "t"), again, name="coin"), say("t", "1"))).plan(
        workflow(dag(ref("c", "flip", "coin")))
    )
    assert verdicts(planned) == {"c.toss": Verdict.MISS, "c.again": Verdict.UNCACHEABLE}


def test_a_template_that_calls_by_a_name_of_the_run_stays_where_it_is() -> None:
    chosen = dag(task("x", "{{inputs.parameters.t}}"), name="chosen", inputs={"parameters": [{"name": "t"}]})
    outer = dag(task("c", "chosen", given={"t": "prepare"}), task("p", "prepare"), name="outer")
    planned = Library(template("lib", outer, chosen, PREPARE)).plan(workflow(dag(ref("o", "lib", "outer"))))
    found = templates_of(planned)
    assert sorted(found) == ["lib--outer", "lib--prepare", "main"]
    assert found["lib--outer"]["dag"]["tasks"][0]["templateRef"] == {"name": "lib", "template": "chosen"}
    assert verdicts(planned) == {"o.c": Verdict.UNCACHEABLE, "o.p": Verdict.MISS}


def test_a_template_that_argo_refuses_where_it_is_used_names_the_users_field_and_its_place() -> None:
    bad = say("t", "{{workflow.parameters.none}}")
    error = refused(Library(template("lib", PREPARE, bad)), workflow(dag(ref("a", "lib", "t"))))
    assert error.field == TASK
    assert error.message.startswith(
        "WorkflowTemplate lib: spec.templates[1].container.args[0]: failed to resolve"
    )


def test_an_object_of_another_shape_is_refused() -> None:
    error = refused(
        Library(template("lib") | {"spec": {"templates": "x"}}), workflow(dag(ref("a", "lib", "t")))
    )
    assert error.field == TASK
    assert error.message.startswith("WorkflowTemplate lib: spec.templates: ")


@pytest.mark.parametrize("spec", [None, {}, {"templates": None}])
def test_an_object_without_templates_has_no_template(spec: Json | None) -> None:
    found = {"kind": "WorkflowTemplate", "metadata": {"name": "lib"}} | (
        {"spec": spec} if spec is not None else {}
    )
    error = refused(Library(found), workflow(dag(ref("a", "lib", "t"))))
    assert error.message == "the WorkflowTemplate lib has no template t; it has: none"


def test_an_object_that_is_nested_too_deeply_is_refused() -> None:
    deep: Any = []
    for _ in range(600):
        deep = [deep]
    library = Library()
    library.templates.objects["lib", False] = template("lib", say("t", "1", odd=deep))
    error = refused(library, workflow(dag(ref("a", "lib", "t"))))
    assert (error.field, error.message) == (TASK, "WorkflowTemplate lib: nested deeper than 64")


def test_a_key_of_another_project_in_a_library_template_is_refused() -> None:
    at = {"artifacts": [{"name": "d", "path": "/d", "s3": {"key": "projects/other/x"}}]}
    error = refused(Library(template("lib", say("t", "1", inputs=at))), workflow(dag(ref("a", "lib", "t"))))
    assert (error.field, error.reason) == (TASK, "KEY_FOREIGN")


@pytest.mark.parametrize("manifest", [workflow(CALLS), whole("pipe")])
def test_without_argo_the_workflow_goes_as_it_is_and_the_plan_says_so(manifest: Json) -> None:
    library = Library(LIB, PIPELINE)
    library.templates.is_unreachable = True
    planned = library.plan(manifest)
    assert planned.manifest == manifest
    assert "no step of a library template is planned or cached: they could not be read" in planned.warnings[0]


def test_for_an_argo_that_demands_references_a_workflow_with_one_goes_as_it_is() -> None:
    library = Library(PIPELINE, LIB)
    library.planner._argo_demands_references = True
    planned = library.plan(whole("pipe"), open="1")
    assert planned.manifest == whole("pipe")
    assert "DISPATCHER_ARGO_DEMANDS_REFERENCES" in planned.warnings[0]
    assert library.templates.read == []
    assert verdicts(library.plan(workflow(CALLS)))["a"] is Verdict.MISS


def test_a_workflow_that_is_too_large_with_its_templates_goes_as_it_is() -> None:
    large = [say(f"t{n}", "x" * 50_000) for n in range(30)]
    manifest = workflow(dag(*(ref(f"a{n}", "lib", f"t{n}") for n in range(30))))
    planned = Library(template("lib", *large)).plan(manifest)
    assert planned.manifest == manifest
    assert "at most 1048576 are read" in planned.warnings[0]
    assert set(verdicts(planned).values()) == {Verdict.UNCACHEABLE}


def test_more_objects_or_bytes_than_the_bounds_are_refused() -> None:
    chain = [template(f"l{n}", dag(ref("x", f"l{n + 1}", "t"), name="t")) for n in range(5)]
    library = Library(*chain, template("l5", say("t", "1")), bounds=LibraryBounds(objects=5))
    assert refused(library, workflow(dag(ref("a", "l0", "t")))).reason == "TEMPLATES_TOO_MANY"
    library = Library(LIB, bounds=LibraryBounds(size_bytes=100))
    assert refused(library, workflow(CALLS)).reason == "TEMPLATES_TOO_LARGE"


def test_thousands_of_library_templates_are_read_in_seconds() -> None:
    lib = template("lib", *(say(f"t{n}", str(n)) for n in range(5000)))
    began = time.process_time()
    planned = Library(lib).plan(workflow(dag(*(ref(f"a{n}", "lib", f"t{n}") for n in range(1000)))))
    assert len(planned.plan.steps) == 1000
    assert time.process_time() - began < 60


def test_an_argo_that_does_not_answer_does_not_hold_the_plan() -> None:
    class Slow(MemoryTemplates):
        async def get_template(self, name: str, *, cluster_scope: bool) -> Json | None:
            await asyncio.sleep(60)
            return None

    library = Library(LIB)
    library.planner._templates = Slow()
    library.planner._bounds = replace(LibraryBounds(), seconds=0.1)
    assert "Argo did not give it in 0.1 s" in library.plan(workflow(CALLS)).warnings[0]


def test_bounds_hold_for_what_templates_of_a_library_make_together() -> None:
    wide = [dag(*(task(f"x{i}", f"t{n + 1}") for i in range(30)), name=f"t{n}") for n in range(3)]
    error = refused(Library(template("lib", *wide, say("t3", "1"))), workflow(dag(ref("a", "lib", "t0"))))
    assert "nodes; at most 20000 are allowed" in error.message


def test_yaml_of_several_documents_is_a_workflow_with_its_library() -> None:
    text = yaml.safe_dump_all([LIB, workflow(CALLS)])
    library = Library()
    planned = library.plan(text)
    assert verdicts(planned) == {"a": Verdict.MISS, "b": Verdict.UNKNOWN}
    assert library.templates.read == []
    assert gives("o")["parameters"] == planned.manifest["spec"]["templates"][1]["outputs"]["parameters"]
