"""Every manifest recorded on a real Argo is accepted where Argo accepted it, and refused where it refused it."""

import json
from pathlib import Path

import pytest
import yaml

from periplus_manifest.check import check
from periplus_manifest.errors import ManifestError
from periplus_manifest.read import read

RECORDINGS = Path(__file__).parents[3] / "tests" / "conformance" / "recordings"
MANIFESTS = sorted((RECORDINGS / "manifests").glob("*.yaml"))

# What Argo's message is about, as the path of the field.
REFUSED = {
    "cycle-is-refused": "spec.templates[0].dag.tasks",
    "depends-and-dependencies-mixed-is-refused": "spec.templates[0].dag.tasks[2].dependencies",
    "missing-argument-is-refused": "spec.templates[0].dag.tasks[0].arguments.parameters",
    "unknown-template-is-refused": "spec.templates[0].dag.tasks[0].template",
    "unresolved-reference-is-refused": "spec.templates[0].dag.tasks[0].arguments.parameters[0].value",
}
# What Argo accepts at submit, and fails at run time.
REFUSED_EARLIER = yaml.safe_load((RECORDINGS / "refused_earlier.yaml").read_text(encoding="utf-8"))


def test_recordings_exist():
    assert len(MANIFESTS) > 30


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_a_recorded_manifest_is_accepted_or_refused_as_by_argo(manifest):
    recording = json.loads((RECORDINGS / "out" / f"{manifest.stem}.json").read_text(encoding="utf-8"))
    document = read(manifest.read_bytes())
    refused = recording.get("refused") and "emplateRef" not in manifest.read_text(encoding="utf-8")
    if not refused and manifest.stem not in REFUSED_EARLIER:
        check(document)
        return
    with pytest.raises(ManifestError) as caught:
        check(document)
    assert caught.value.path == (REFUSED | REFUSED_EARLIER).get(manifest.stem, caught.value.path)
