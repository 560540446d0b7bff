"""The small files of a pod on the node: hosts, resolv.conf, termination messages.

They lie beside the pod's volumes and go with them.
"""

from __future__ import annotations

from pathlib import Path

from kybern.api.types import Container as ContainerSpec

# Kubernetes' bounds for a termination message.
MAX_MESSAGE = 4096
FALLBACK_BYTES = 2048
FALLBACK_LINES = 80


def write_etc(pod_dir: Path, *, hosts: str, resolv: str, hostname: str) -> dict[str, Path]:
    """Write what every container of a pod finds in /etc; the result maps container paths to host paths."""
    etc = pod_dir / "etc"
    etc.mkdir(parents=True, exist_ok=True)
    files = {"hosts": hosts, "resolv.conf": resolv, "hostname": hostname + "\n"}
    for name, text in files.items():
        path = etc / name
        # In place: running containers have this very file mounted.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
    return {f"/etc/{name}": etc / name for name in files}


def message_path(pod_dir: Path, name: str, attempt: int) -> Path:
    """The file that one attempt of a container may leave a message in."""
    return pod_dir / "containers" / name / str(attempt)


def make_message_file(pod_dir: Path, name: str, attempt: int) -> Path:
    """Make that file, for any user to write to."""
    path = message_path(pod_dir, name, attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    path.chmod(0o666)
    # Of earlier attempts only the last one is still asked for.
    for old in path.parent.iterdir():
        if old.name.isdecimal() and int(old.name) < attempt - 1:
            old.unlink()
    return path


def read_message(pod_dir: Path, name: str, attempt: int) -> str:
    """What a container left; empty when nothing."""
    path = message_path(pod_dir, name, attempt)
    try:
        with path.open("rb") as file:
            return file.read(MAX_MESSAGE).decode(errors="replace")
    except OSError:
        return ""


def wants_log(spec: ContainerSpec | None, exit_code: int | None) -> bool:
    """Whether the end of the log stands in for a message that was not left."""
    return spec is not None and spec.termination_message_policy == "FallbackToLogsOnError" and exit_code != 0
