"""What the Docker Engine API shows, in the words of the runtime interface. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.runtime import docker_config as words
from node.runtime.interface import Container, ContainerState, Image, PodIdentity, RuntimeFailure, Sandbox
from node.runtime.references import normalise

_STATES = {
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    # Frozen by hand: its processes are there.
    "paused": ContainerState.RUNNING,
    "exited": ContainerState.EXITED,
    "dead": ContainerState.EXITED,
}
# Go's zero time stands for "never".
_NEVER = "0001-01-01"
_FRACTION = re.compile(r"\.(\d{1,9})")


def moment(text: str) -> datetime | None:
    """A time of the engine (RFC 3339 with up to nine digits of a second); None for its zero."""
    if not text or text.startswith(_NEVER):
        return None
    # datetime knows six digits at most.
    cut = _FRACTION.sub(lambda match: "." + match[1][:6].ljust(6, "0"), text)
    return datetime.fromisoformat(cut).astimezone(UTC)


def pod_of(labels: Mapping[str, str]) -> PodIdentity | None:
    """The pod that labels name; None when they are not ours."""
    try:
        return PodIdentity(labels[words.POD_NAMESPACE], labels[words.POD_NAME], labels[words.POD_UID])
    except KeyError:
        return None


def labels_of(inspected: Mapping[str, Any]) -> dict[str, str]:
    """The labels in the answer to GET /containers/ID/json."""
    return dict((inspected.get("Config") or {}).get("Labels") or {})


def pid_of(inspected: Mapping[str, Any]) -> int:
    """The main process on the host; 0 when there is none."""
    return int((inspected.get("State") or {}).get("Pid") or 0)


def shares_of(labels: Mapping[str, str]) -> frozenset[str]:
    """What a sandbox with these labels shares."""
    return frozenset(filter(None, labels.get(words.SHARES, "").split(",")))


def sandbox(inspected: Mapping[str, Any]) -> Sandbox | None:
    """The sandbox in the answer to GET /containers/ID/json; None when it is not one of ours."""
    labels = labels_of(inspected)
    pod = pod_of(labels)
    if pod is None:
        return None
    pid = pid_of(inspected)
    ready = bool(inspected["State"].get("Running")) and pid > 0
    own = ready and words.HOST_NETWORK not in shares_of(labels)
    return Sandbox(
        id=inspected["Id"],
        pod=pod,
        attempt=int(labels.get(words.ATTEMPT, "0")),
        ready=ready,
        created_at=moment(inspected["Created"]) or datetime.fromtimestamp(0, UTC),
        network_namespace=Path(f"/proc/{pid}/ns/net") if own else None,
    )


def container(inspected: Mapping[str, Any]) -> Container | None:
    """The container in the answer to GET /containers/ID/json; None when it is not one of ours."""
    labels = labels_of(inspected)
    pod = pod_of(labels)
    if pod is None:
        return None
    shown = inspected["State"]
    state = _STATES.get(shown.get("Status", ""), ContainerState.UNKNOWN)
    created = moment(inspected["Created"]) or datetime.fromtimestamp(0, UTC)
    finished = moment(shown.get("FinishedAt", ""))
    failed = state is ContainerState.CREATED and (shown.get("Error") or shown.get("ExitCode"))
    if failed:
        # Its start was refused: the engine calls it created, but it will never run.
        state, finished = ContainerState.EXITED, finished or created
    ended = state is ContainerState.EXITED
    started = moment(shown.get("StartedAt", ""))
    if ended and started and finished:
        # The engine notes the start of what ends at once after its end.
        started = min(started, finished)
    code = int(shown.get("ExitCode") or 0)
    return Container(
        id=inspected["Id"],
        sandbox_id=labels.get(words.SANDBOX, ""),
        pod=pod,
        name=labels.get(words.CONTAINER, ""),
        attempt=int(labels.get(words.ATTEMPT, "0")),
        state=state,
        image=labels.get(words.IMAGE, ""),
        image_id=inspected.get("Image", ""),
        created_at=created,
        started_at=started,
        finished_at=finished if ended else None,
        exit_code=code if ended else None,
        reason=_reason(shown, code, bool(failed)) if ended else "",
        message=str(shown.get("Error") or "") if ended else "",
        labels={key: value for key, value in labels.items() if key not in words.OWN_LABELS},
    )


def _reason(shown: Mapping[str, Any], code: int, never_ran: bool) -> str:
    if never_ran:
        return "ContainerCannotRun"
    # The mark alone only says that some process of the container met the limit.
    if shown.get("OOMKilled") and code != 0:
        return "OOMKilled"
    return "Completed" if code == 0 else "Error"


def image(shown: Mapping[str, Any]) -> Image:
    """The image in the answer to GET /images/NAME/json, with names in full."""
    none = ("<none>:<none>", "<none>@<none>")
    return Image(
        id=shown["Id"],
        tags=tuple(_full(tag) for tag in shown.get("RepoTags") or () if tag not in none),
        digests=tuple(_full(digest) for digest in shown.get("RepoDigests") or () if digest not in none),
        size_bytes=int(shown.get("Size") or 0),
        user=str((shown.get("Config") or {}).get("User") or ""),
    )


def _full(name: str) -> str:
    # An engine's store may hold names from before today's rules.
    try:
        return normalise(name)
    except RuntimeFailure:
        return name
