"""Write `gen/` from the protos: messages, gRPC stubs and their types.

The validation rules of protovalidate stay in the descriptors as options, but its own proto is not imported
by the generated code: a client need not load a validator, and a server's validator finds the rules all the same.
"""

import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

RULES = "buf/validate/validate.proto"
ROOT = Path(__file__).parent
BUILD = ROOT.parent / ".proto-build"


def main() -> None:
    """Compile, check the style (`buf lint`), and write what `gen/` holds."""
    BUILD.mkdir(exist_ok=True)
    rules, image, light = BUILD / "rules.binpb", BUILD / "image.binpb", BUILD / "light.binpb"
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "periplus").rglob("*.proto"))
    rules.write_bytes(rules_descriptor())
    compile_with(
        f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}", f"--descriptor_set_in={rules}",
        "--include_imports", "--include_source_info", f"--descriptor_set_out={image}", *sources,
    )  # fmt: skip
    light.write_bytes(without_rules(image.read_bytes()))
    lint(image)
    out = ROOT / "gen"
    for stale in (out / "periplus").glob("*/v1"):
        shutil.rmtree(stale)
    bin_ = Path(sys.executable).parent
    compile_with(
        f"--descriptor_set_in={light}", f"--python_out={out}", f"--grpc_python_out={out}",
        f"--plugin=protoc-gen-mypy={bin_ / 'protoc-gen-mypy'}", f"--mypy_out=quiet:{out}",
        f"--plugin=protoc-gen-mypy_grpc={bin_ / 'protoc-gen-mypy_grpc'}", f"--mypy_grpc_out=quiet:{out}",
        *sources,
    )  # fmt: skip


def rules_descriptor() -> bytes:
    """The descriptors of protovalidate's own proto and of what it imports, from the installed distribution."""
    found: dict[str, bytes] = {}

    def add(file: object) -> None:
        for dependency in file.dependencies:  # type: ignore[attr-defined]
            add(dependency)
        found.setdefault(file.name, file.proto.to_binary())  # type: ignore[attr-defined]

    add(validate_pb.desc())
    descriptors = FileDescriptorSet()
    for content in found.values():
        descriptors.file.add().ParseFromString(content)
    return descriptors.SerializeToString()


def without_rules(image: bytes) -> bytes:
    """The same files without the import of the rules. The rules themselves remain, as options nobody has named."""
    descriptors = FileDescriptorSet.FromString(image)
    kept = FileDescriptorSet()
    for file in descriptors.file:
        if file.name == RULES:
            continue
        names = [name for name in file.dependency if name != RULES]
        del file.dependency[:]
        file.dependency.extend(names)
        kept.file.append(file)
    return kept.SerializeToString()


def lint(image: Path) -> None:
    """Check the style of the protos, by the rules of `buf.yaml`."""
    buf = Path(sys.executable).parent / "buf"
    subprocess.run([buf, "lint", image, "--config", ROOT / "buf.yaml"], check=True)


def compile_with(*arguments: str) -> None:
    """Run protoc, and end with its status where it fails."""
    status = protoc.main(["protoc", *arguments])
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
