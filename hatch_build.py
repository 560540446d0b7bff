"""Generates kybern/pb from proto/ when the package is built or installed, and for `make proto`.

Paths below proto/ equal the import paths, so that `proto/kybern/pb/v1/objects.proto` becomes
`kybern/pb/v1/objects_pb2.py` (messages), `objects_pb2_grpc.py` (stubs and servicers) and their type stubs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent


def generate(root: Path = ROOT) -> list[Path]:
    """Write the modules for every .proto file, replacing what was there; returns the .proto files."""
    protos = sorted((root / "proto").rglob("*.proto"))
    target = root / "kybern" / "pb"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={root / 'proto'}",
        f"--python_out={root}",
        f"--grpc_python_out={root}",
        f"--mypy_out=quiet:{root}",
        f"--mypy_grpc_out=quiet:{root}",
        *(str(p) for p in protos),
    ]
    scripts = Path(sys.executable).parent
    plugins = [
        f"--plugin={name}={path}"
        for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
        if (path := scripts / name).exists()
    ]
    subprocess.run(command + plugins, check=True, cwd=root)
    for folder in {target, *(p.parent for p in target.rglob("*_pb2.py"))}:
        (folder / "__init__.py").touch()
    return protos


class ProtoBuildHook(BuildHookInterface[Any]):
    """Runs the generator before hatchling collects the files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        generate(Path(self.root))


if __name__ == "__main__":
    for proto in generate():
        print(proto.relative_to(ROOT))
