"""Whatever the plan decides, the user's container and script templates reach Argo byte for byte, copies but for their names."""

import asyncio
import copy
import json
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import HIT, MISS, UNKNOWN, dag, gives, hit, task, workflow
from test_library import Library, ref, template

from periplus_dispatcher.domain import RunRequest
from periplus_dispatcher.rewrite.plan import decide
from periplus_dispatcher.rewrite.rewriter import rewrite
from periplus_manifest.check import check
from periplus_model.queries import StepVerdict

Json = dict[str, Any]
NAMES = ("t0", "t1", "t2")
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t"), max_size=30).map(
    lambda text: text.replace("{{", "{ {")
)
CODE = st.sampled_from(
    ["{{inputs.parameters.x}}", "f'{{\"w\": {w}}}'", "{{ row.name }}", "{% for a in b %}{{ a }}{% endfor %}", "${HOME}", "\\u2028"]
)  # fmt: skip
SCALARS = st.one_of(st.integers(-5, 5), st.booleans(), TEXTS)


@st.composite
def bodies(draw: st.DrawFn, name: str) -> Json:
    """A container or script template with fields in any order, some of which do not matter to the rewrite."""
    lines = draw(st.lists(st.one_of(TEXTS, CODE), min_size=1, max_size=4))
    main: Json = {"image": "i", "command": ["sh", "-c"]}
    kind = draw(st.sampled_from(["container", "script"]))
    main |= {"source": "\n".join(lines)} if kind == "script" else {"args": lines}
    fields: Json = {
        "name": name,
        "inputs": {"parameters": [{"name": "x", "default": draw(TEXTS)}]},
        "outputs": gives("o"),
        kind: main,
        "metadata": {"annotations": draw(st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=2))},
        "nodeSelector": {"a": draw(TEXTS)},
        "retryStrategy": {"limit": draw(st.integers(0, 3))},
        "parallel-unknown-field": draw(st.lists(SCALARS, max_size=2)),
    }
    kept = ["name", "inputs", "outputs", kind, *draw(st.sets(st.sampled_from(sorted(fields)), max_size=8))]
    order = draw(st.permutations(sorted({key for key in kept if key in fields})))
    return {key: fields[key] for key in order}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Json, Json, dict[str, StepVerdict]]:
    """A workflow of own and of library templates, its library, and verdicts."""
    own = [draw(bodies(name)) for name in NAMES]
    library = template("lib", *(draw(bodies(name)) for name in NAMES))
    tasks: list[Json] = []
    for number in range(draw(st.integers(1, 5))):
        of = draw(st.sampled_from(NAMES))
        before = [each["name"] for each in tasks]
        depends = draw(st.lists(st.sampled_from(before), unique=True, max_size=2)) if before else []
        value = (
            "{{tasks." + depends[0] + ".outputs.parameters.o}}" if depends else draw(st.sampled_from("12"))
        )
        more: Json = {"given": {"x": value}} | ({"depends": " && ".join(depends)} if depends else {})
        if draw(st.booleans()) and not depends:
            more |= {"withItems": [1, 2]}
        name = f"a{number}"
        tasks.append(ref(name, "lib", of, **more) if draw(st.booleans()) else task(name, of, **more))
    verdicts = {
        each["name"]: draw(st.sampled_from([MISS, UNKNOWN, hit(o="1"), hit(o="{{x}}"), HIT]))
        for each in tasks
    }
    return workflow(dag(*tasks), *own), library, verdicts


@settings(max_examples=60, deadline=None)
@given(cases())
def test_templates_of_the_user_stay_byte_for_byte(case: tuple[Json, Json, dict[str, StepVerdict]]) -> None:
    manifest, library, verdicts = case
    before = copy.deepcopy((manifest, library))
    text = json.dumps(manifest)
    planned = asyncio.run(Library(library).planner.plan(RunRequest("p", text, {}, None, None)))
    assert planned.warnings == ()
    fan_outs = {call.path for call in planned.expanded.calls if call.is_fan_out}
    known = {path: verdict for path, verdict in verdicts.items() if path not in fan_outs}
    templates = planned.expanded.templates
    done = rewrite(
        planned.manifest, decide(planned.expanded, known), templates, gate_timeout=timedelta(seconds=60)
    )
    assert (manifest, library) == before
    check(done.manifest)
    found = {each["name"]: json.dumps(each) for each in done.manifest["spec"]["templates"]}
    for own in manifest["spec"]["templates"][1:]:
        assert found[own["name"]] == json.dumps(own)
    for original in library["spec"]["templates"]:
        name = f"lib--{original['name']}"
        if name in found:
            assert found[name] == json.dumps({**original, "name": name})
    main = done.manifest["spec"]["templates"][0]
    assert main["name"] == "main"
    tasks = {each["name"]: each for each in main["dag"]["tasks"]}
    for each in manifest["spec"]["templates"][0]["dag"]["tasks"]:
        changed = {"template", "templateRef", "arguments", "depends", "withItems"}
        kept = [{k: v for k, v in one.items() if k not in changed} for one in (each, tasks[each["name"]])]
        assert kept[0] == kept[1]
