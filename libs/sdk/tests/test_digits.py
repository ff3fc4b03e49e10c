"""The example pipeline runs as plain Python, and as the processes that its manifest describes."""

import json
from pathlib import Path

import pytest

from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import compile  # noqa: A004 - the public name

PIPELINE = Path(__file__).parents[3] / "examples" / "digits" / "pipeline.py"


def test_the_digits_pipeline_runs_as_its_manifest_says(execute):
    result = compile(load(PIPELINE), {"c": [1.0, 8.0], "gamma": [0.02]})
    run = execute(result)
    outputs = run.run()
    assert outputs["output"] > 0.95
    trained = [name for name in run.ran if name.startswith("train")]
    assert trained == ["train-0", "train-1"]
    card = json.loads(run.files["tasks.register.outputs.artifacts.output"].read_text())
    assert card["accuracy"] == outputs["output"]
    assert sum(map(sum, card["confusion"])) == 360


def test_it_has_six_settings_by_default_and_registers_only_a_good_model():
    result = compile(load(PIPELINE))
    spec = result.manifest["spec"]
    tasks = {one["name"]: one for one in spec["templates"][0]["dag"]["tasks"]}
    assert tasks["train"]["withParam"] == "{{tasks.settings.outputs.parameters.output}}"
    assert tasks["register"]["when"] == "{{tasks.evaluate.outputs.parameters.accuracy}} > 0.9"
    values = {one["name"]: json.loads(one["value"]) for one in spec["arguments"]["parameters"]}
    assert len(values["c"]) * len(values["gamma"]) == 6
    assert result.workflow().to_dict() == result.manifest


@pytest.mark.parametrize(
    ("file", "old", "new", "steps"),
    [
        ("preparation.py", "# The images have 17 shades, from 0 to 16.", "# Another comment.", set()),
        ("preparation.py", "pixels / BRIGHTEST", "pixels / BRIGHTEST - 0.5", {"features"}),
        ("scoring.py", "4)", "3)", {"train", "evaluate"}),
        ("scoring.py", "table[figure][answer] += 1", "table[figure][answer] += 2", {"register"}),
        ("pipeline.py", "@step(retries=1)", "@step(retries=2)", set()),
        ("pipeline.py", "load_digits()", "load_digits(n_class=10)", {"ingest"}),
    ],
)
def test_an_edit_changes_the_code_of_the_steps_that_depend_on_it(write, file, old, new, steps):
    files = {one.name: one.read_text() for one in PIPELINE.parent.glob("*.py")}
    folder = write(files)
    before = {one.template: one.digests for one in compile(load(folder / "pipeline.py")).steps}
    assert old in files[file]
    write({file: files[file].replace(old, new, 1)})
    after = {one.template: one.digests for one in compile(load(folder / "pipeline.py")).steps}
    assert {name for name in before if before[name] != after[name]} == steps


def test_every_kind_of_call_runs_in_the_real_runner(compiled, execute):
    result = compiled(
        """
        from pathlib import Path
        from typing import NamedTuple
        class Parts(NamedTuple):
            raw: bytes
            names: list[str]
        @step
        def parts(n: int) -> Parts:
            return Parts(b"12345", ["a b", '"q"', "$x {{y}}", "5", "null"][:n])
        @step
        def label(raw: bytes, name: str) -> str:
            return f"{len(raw)}:{name}"
        @step
        def upper(text: str) -> str:
            return text.upper()
        @step
        def deal(text: str) -> dict[str, list[float]]:
            return {text: [1.0, 2.0**70]}
        @step
        def first(deal: dict[str, list[float]]) -> float:
            return next(iter(deal.values()))[1]
        @step
        def join(texts: list[str], others: list[str], deals: list[dict[str, list[float]]], firsts: list[float]) -> str:
            assert [list(one.values()) for one in deals] == [[[1.0, 2.0**70]]] * 2
            assert firsts == [2.0**70] * 2
            return "|".join(texts + others)
        @step
        def folder(text: str) -> Path:
            place = Path("made"); place.mkdir(); (place / "t").write_text(text); return place
        @step
        def read(place: Path) -> str:
            return (place / "t").read_text()
        @pipeline
        def flow(n: int = 5) -> str:
            made = parts(n)
            labels = label.map(made.raw, each(made.names))
            loud = upper.map(each(labels))
            known = upper.map(each(["x", "y{{z}}"]))
            deals = deal.map(each(known))
            return read(folder(join(loud, known, deals, first.map(each(deals)))))
        """
    )
    expected = '5:A B|5:"Q"|5:$X {{Y}}|5:5|5:NULL|X|Y{{Z}}'
    assert execute(result).run() == {"output": expected}
    assert load(result.root / "flow.py").function.__name__ == "flow"


def test_a_step_with_a_false_condition_does_not_run(compiled, execute):
    result = compiled(
        """
        @step
        def score() -> float: return 0.00001
        @step
        def first(x: float) -> str: return "ran"
        @step
        def second(text: str) -> str: return text
        @pipeline
        def flow() -> float:
            value = score()
            with when(value > 0.9):
                text = first(value)
            second(text)
            return value
        """
    )
    run = execute(result)
    assert run.run() == {"output": 0.00001}
    assert run.ran == ["score"]
