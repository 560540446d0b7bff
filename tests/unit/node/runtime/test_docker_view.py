"""How the engine's answers are read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from node.runtime import docker_config as words
from node.runtime import docker_view
from node.runtime.interface import ContainerConfig, ContainerState, PodIdentity, Sandbox, SandboxConfig

POD = PodIdentity("shop", "web", "u1")
NEVER = "0001-01-01T00:00:00Z"
SANDBOX = Sandbox("s1", POD, 0, True, datetime.now(UTC))


def shown(labels: dict[str, str] | None = None, **state: Any) -> dict[str, Any]:
    if labels is None:
        config = ContainerConfig("main", "app:1", attempt=3, labels={"kybern.io/hash": "h"})
        labels = words.container_body(SANDBOX, frozenset(), config, "", 0)["Labels"]
    return {
        "Id": "c1",
        "Created": "2026-01-02T03:04:05.123456789Z",
        "Image": "sha256:1",
        "Config": {"Labels": labels},
        "State": {"Status": "running", "StartedAt": NEVER, "FinishedAt": NEVER, "ExitCode": 0, **state},
    }


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2026-01-02T03:04:05.123456789Z", datetime(2026, 1, 2, 3, 4, 5, 123456, UTC)),
        ("2026-01-02T03:04:05.1Z", datetime(2026, 1, 2, 3, 4, 5, 100000, UTC)),
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T05:04:05.5+02:00", datetime(2026, 1, 2, 3, 4, 5, 500000, UTC)),
        (NEVER, None),
        ("", None),
    ],
)
def test_times(text: str, want: datetime | None) -> None:
    assert docker_view.moment(text) == want


def test_labels_lead_back_to_the_pod() -> None:
    found = docker_view.container(shown())
    assert found is not None
    assert (found.pod, found.name, found.attempt, found.sandbox_id, found.image) == (POD, "main", 3, "s1", "app:1")
    assert found.labels == {"kybern.io/hash": "h"}
    assert docker_view.container(shown({"other": "x"})) is None
    assert docker_view.sandbox(shown({})) is None


@pytest.mark.parametrize(
    ("state", "want", "code", "reason"),
    [
        ({"Status": "created"}, ContainerState.CREATED, None, ""),
        ({"Status": "running"}, ContainerState.RUNNING, None, ""),
        ({"Status": "paused"}, ContainerState.RUNNING, None, ""),
        ({"Status": "removing"}, ContainerState.UNKNOWN, None, ""),
        ({"Status": "exited"}, ContainerState.EXITED, 0, "Completed"),
        ({"Status": "exited", "ExitCode": 2}, ContainerState.EXITED, 2, "Error"),
        ({"Status": "dead", "ExitCode": 137}, ContainerState.EXITED, 137, "Error"),
        ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, ContainerState.EXITED, 137, "OOMKilled"),
        # A child met the limit; the container itself ended well.
        ({"Status": "exited", "ExitCode": 0, "OOMKilled": True}, ContainerState.EXITED, 0, "Completed"),
        ({"Status": "created", "ExitCode": 127, "Error": "no"}, ContainerState.EXITED, 127, "ContainerCannotRun"),
    ],
)
def test_states(state: dict[str, Any], want: ContainerState, code: int | None, reason: str) -> None:
    found = docker_view.container(shown(**state))
    assert found is not None
    assert (found.state, found.exit_code, found.reason) == (want, code, reason)
    assert (found.finished_at is not None) == (want is ContainerState.EXITED and state["Status"] == "created")


def test_what_ends_at_once_has_started_before() -> None:
    started, finished = "2026-01-02T03:04:06.2Z", "2026-01-02T03:04:06.1Z"
    found = docker_view.container(shown(Status="exited", StartedAt=started, FinishedAt=finished))
    assert found is not None
    assert found.started_at == found.finished_at


def test_sandboxes() -> None:
    own = words.sandbox_body(SandboxConfig(POD, attempt=4), "", 0)["Labels"]
    found = docker_view.sandbox(shown(own, Running=True, Pid=77))
    assert found is not None
    assert (found.pod, found.attempt, found.ready) == (POD, 4, True)
    assert found.network_namespace == Path("/proc/77/ns/net")
    ended = docker_view.sandbox(shown(own, Status="exited", Running=False, Pid=0))
    assert ended is not None
    assert (ended.ready, ended.network_namespace) == (False, None)
    hosts = words.sandbox_body(SandboxConfig(POD, host_network=True), "", 0)["Labels"]
    host = docker_view.sandbox(shown(hosts, Running=True, Pid=77))
    assert host is not None
    assert (host.ready, host.network_namespace) == (True, None)
    assert docker_view.shares_of(hosts) == {words.HOST_NETWORK}


def test_images_have_full_names() -> None:
    image = docker_view.image(
        {
            "Id": "sha256:1",
            "RepoTags": ["busybox:latest", "<none>:<none>", "Not A Name"],
            "RepoDigests": None,
            "Size": 5,
            "Config": {"User": "1000"},
        }
    )
    assert image.tags == ("docker.io/library/busybox:latest", "Not A Name")
    assert (image.digests, image.size_bytes, image.user) == ((), 5, "1000")
