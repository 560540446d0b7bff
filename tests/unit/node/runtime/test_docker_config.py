"""What the engine is asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from node.runtime import docker_config as words
from node.runtime.interface import ContainerConfig, Limits, Mount, PodIdentity, Sandbox, SandboxConfig, Security

POD = PodIdentity("shop", "web", "u1")
SANDBOX = Sandbox("s" * 64, POD, 2, True, datetime.now(UTC), Path("/proc/1/ns/net"))
JOINED = f"container:{SANDBOX.id}"


def body(shared: frozenset[str] = frozenset(), lowest: int = -1000, **fields: Any) -> dict[str, Any]:
    config = ContainerConfig("main", "app:1", **fields)
    return words.container_body(SANDBOX, shared, config, "/parent", lowest)


def host(shared: frozenset[str] = frozenset(), lowest: int = -1000, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = body(shared, lowest, **fields)["HostConfig"]
    return found


def test_a_container_joins_its_sandbox() -> None:
    found = host()
    assert (found["NetworkMode"], found["IpcMode"], found["PidMode"], found["UTSMode"]) == (JOINED, JOINED, "", "")
    assert found["CgroupParent"] == "/parent"


def test_what_a_sandbox_shares_decides_for_its_containers() -> None:
    config = SandboxConfig(POD, host_network=True, host_pid=True, host_ipc=True, share_process_namespace=True)
    everything = words.shares(config)
    found = host(everything)
    assert {found[mode] for mode in ("NetworkMode", "IpcMode", "PidMode", "UTSMode")} == {"host"}
    shared = words.shares(SandboxConfig(POD, share_process_namespace=True))
    assert host(shared)["PidMode"] == JOINED


def test_a_sandbox_has_a_name_in_its_own_network_only() -> None:
    own = words.sandbox_body(SandboxConfig(POD, hostname="web-1"), "", -1000)
    assert (own["Hostname"], own["NetworkDisabled"], own["HostConfig"]["NetworkMode"]) == ("web-1", True, "none")
    hosts = words.sandbox_body(SandboxConfig(POD, hostname="web-1", host_network=True), "", -1000)
    assert (hosts["Hostname"], hosts["NetworkDisabled"], hosts["HostConfig"]["NetworkMode"]) == ("", False, "host")


def test_names_tell_attempts_apart() -> None:
    names = {
        words.sandbox_name(SandboxConfig(POD)),
        words.sandbox_name(SandboxConfig(POD, attempt=1)),
        words.container_name(SANDBOX, ContainerConfig("main", "a")),
        words.container_name(SANDBOX, ContainerConfig("main", "a", attempt=1)),
        words.container_name(SANDBOX, ContainerConfig("side", "a")),
    }
    assert len(names) == 5


@pytest.mark.parametrize(
    ("fields", "entrypoint", "command"),
    [
        ({}, None, None),
        ({"args": ("x",)}, None, ["x"]),
        ({"command": ("c",)}, ["c"], None),
        ({"command": ("c",), "args": ("x", "y")}, ["c"], ["x", "y"]),
    ],
)
def test_command_and_arguments(fields: dict[str, Any], entrypoint: list[str] | None, command: list[str] | None) -> None:
    found = body(**fields)
    assert (found.get("Entrypoint"), found.get("Cmd")) == (entrypoint, command)


def test_labels_cannot_be_forged() -> None:
    labels = body(labels={"kybern.io/hash": "1", words.POD_UID: "forged", words.KIND: "trial"})["Labels"]
    assert labels["kybern.io/hash"] == "1"
    assert (labels[words.POD_UID], labels[words.KIND]) == ("u1", "container")


@pytest.mark.parametrize(("asked", "lowest", "got"), [(-997, -1000, -997), (-997, 0, 0), (500, 0, 500), (0, 0, 0)])
def test_scores_below_what_is_allowed_are_raised(asked: int, lowest: int, got: int) -> None:
    assert host(lowest=lowest, limits=Limits(oom_score_adj=asked))["OomScoreAdj"] == got


def test_limits_of_zero_are_not_sent() -> None:
    assert not {"Memory", "MemorySwap", "CpuShares", "CpuQuota", "CpuPeriod"} & host().keys()
    # A period alone would be refused where it means nothing.
    assert "CpuPeriod" not in host(limits=Limits(cpu_period_us=100_000))
    found = host(limits=Limits(cpu_shares=2, cpu_period_us=100_000, cpu_quota_us=5_000, memory_bytes=64))
    assert (found["Memory"], found["MemorySwap"], found["CpuShares"]) == (64, 64, 2)
    assert (found["CpuPeriod"], found["CpuQuota"]) == (100_000, 5_000)


def test_security() -> None:
    security = Security(
        user="7:8", add_capabilities=("net_admin", "ALL"), drop_capabilities=("CAP_MKNOD",), supplemental_groups=(5,)
    )
    found = host(security=security)
    assert (found["CapAdd"], found["CapDrop"], found["GroupAdd"]) == (["CAP_NET_ADMIN", "ALL"], ["CAP_MKNOD"], ["5"])
    assert found["SecurityOpt"] == []
    assert host(security=Security(allow_privilege_escalation=False))["SecurityOpt"] == ["no-new-privileges"]
    # The kernel cannot have both, and a privileged container is allowed everything anyway.
    both = Security(allow_privilege_escalation=False, privileged=True)
    assert host(security=both)["SecurityOpt"] == []


def test_mounts() -> None:
    mounts = [Mount(Path("/a"), "/b", read_only=True), Mount(Path("/c"), "/d", propagation="rslave")]
    first, second = host(mounts=mounts)["Mounts"]
    assert first == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate"},
    }
    assert (second["ReadOnly"], second["BindOptions"]["Propagation"]) == (False, "rslave")


@pytest.mark.parametrize(("grace", "seconds"), [(0, 0), (0.1, 1), (30, 30), (30.5, 31), (-1, 0)])
def test_grace_periods_are_never_cut_short(grace: float, seconds: int) -> None:
    assert words.stop_seconds(grace) == seconds
