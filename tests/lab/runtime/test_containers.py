"""Sandboxes and containers on a real engine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from kybern.config.models import DockerRuntime as DockerConfig
from node.runtime.docker import DockerRuntime
from node.runtime.interface import (
    ContainerConfig,
    ContainerState,
    Limits,
    LogOptions,
    Mount,
    PodIdentity,
    RuntimeFailure,
    SandboxConfig,
    Security,
)
from tests.lab.engine import Engine
from tests.lab.runtime.pods import PATIENCE, Pods

pytestmark = pytest.mark.lab
OWN_NETWORK = str(Path("/proc/self/ns/net").readlink())
FOLLOW = LogOptions(follow=True)
POD = PodIdentity("shop", "web", "uid-web")


def link(path: Path) -> str:
    return str(path.readlink())


def open_for_all(folder: Path) -> None:
    folder.chmod(0o777)


async def test_a_sandbox_has_a_network_of_its_own_that_its_containers_share(pods: Pods) -> None:
    sandbox = await pods.sandbox(hostname="web-1")
    assert sandbox.ready
    assert sandbox.network_namespace is not None
    theirs = link(sandbox.network_namespace)
    assert theirs != OWN_NETWORK
    said = await pods.says("hostname; readlink /proc/self/ns/net; ip -o link | wc -l", sandbox=sandbox)
    assert said.split() == ["web-1", theirs, "1"]
    shared = "echo kept > /dev/shm/note"
    await pods.ended(await pods.start(shared, sandbox=sandbox, name="writer"))
    assert await pods.says("cat /dev/shm/note", sandbox=sandbox, name="reader") == "kept\n"


async def test_a_sandbox_with_the_hosts_network_has_the_hosts(pods: Pods) -> None:
    sandbox = await pods.sandbox(host_network=True, hostname="ignored")
    assert sandbox.network_namespace is None
    said = await pods.says("readlink /proc/self/ns/net; hostname", sandbox=sandbox)
    assert said.split() == [OWN_NETWORK, os.uname().nodename]


@pytest.mark.parametrize(("script", "code", "reason"), [("exit 0", 0, "Completed"), ("exit 3", 3, "Error")])
async def test_how_a_container_ended(pods: Pods, script: str, code: int, reason: str) -> None:
    ended = await pods.ended(await pods.start(script))
    assert (ended.exit_code, ended.reason) == (code, reason)
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert ended.created_at <= ended.started_at <= ended.finished_at


async def test_a_container_that_takes_too_much_memory_is_killed_for_it(pods: Pods) -> None:
    limits = Limits(memory_bytes=16 * 1024 * 1024)
    container = await pods.start("dd if=/dev/zero of=/dev/null bs=64M", limits=limits)
    ended = await pods.until(container, lambda shown: bool(shown.reason))
    if ended.reason == "Error":
        # The kernel's report may come after the exit.
        ended = await pods.until(container, lambda shown: shown.reason != "Error")
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)


async def test_a_command_that_is_not_there(pods: Pods) -> None:
    container = await pods.create("", command=("/no/such/program",))
    with pytest.raises(RuntimeFailure, match="no such file") as refused:
        await pods.runtime.start_container(container)
    assert refused.value.reason == "RunContainerError"
    shown = await pods.show(container)
    assert (shown.state, shown.reason) == (ContainerState.EXITED, "ContainerCannotRun")
    assert "no such file" in shown.message


async def test_an_image_that_is_not_there(pods: Pods) -> None:
    with pytest.raises(RuntimeFailure, match="No such image") as refused:
        await pods.create("", image="absent:1")
    assert refused.value.reason == "CreateContainerError"


async def test_stopping_with_and_without_patience(pods: Pods) -> None:
    polite = await pods.start("trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done")
    deaf = await pods.start("trap '' TERM; echo up; while :; do sleep 0.1; done")
    for container in (polite, deaf):
        async with asyncio.timeout(PATIENCE):
            assert await anext(aiter(pods.runtime.logs(container, FOLLOW))) == b"up\n"
    await asyncio.gather(pods.runtime.stop_container(polite, 20), pods.runtime.stop_container(deaf, 0.5))
    assert (await pods.show(polite)).exit_code == 7
    assert (await pods.show(deaf)).exit_code == 137
    # Again, and of what is gone: nothing to do.
    await pods.runtime.stop_container(polite, 1)
    await pods.runtime.remove_container(polite)
    await pods.runtime.remove_container(polite)
    await pods.runtime.stop_container(polite, 1)


async def test_a_pods_attempt_exists_once(pods: Pods) -> None:
    sandbox = await pods.sandbox(pod=POD)
    with pytest.raises(RuntimeFailure) as refused:
        await pods.runtime.run_sandbox(SandboxConfig(POD))
    assert refused.value.reason == "CreatePodSandboxError"
    assert [s.id for s in await pods.runtime.sandboxes()] == [sandbox.id]
    await pods.create("exit", sandbox=sandbox)
    with pytest.raises(RuntimeFailure):
        await pods.create("exit", sandbox=sandbox)
    await pods.create("exit", sandbox=sandbox, attempt=1)
    assert sorted(c.attempt for c in await pods.runtime.containers()) == [0, 1]


async def test_a_sandbox_goes_with_its_containers(pods: Pods) -> None:
    sandbox = await pods.sandbox()
    await pods.start("sleep 1000", sandbox=sandbox)
    await pods.runtime.stop_sandbox(sandbox.id)
    shown = await pods.runtime.sandboxes()
    assert [(s.id, s.ready, s.network_namespace) for s in shown] == [(sandbox.id, False, None)]
    await pods.runtime.remove_sandbox(sandbox.id)
    await pods.runtime.remove_sandbox(sandbox.id)
    assert not await pods.runtime.sandboxes()
    assert not await pods.runtime.containers()


async def test_another_agent_finds_everything_again(docker: Engine, pods: Pods) -> None:
    sandbox = await pods.sandbox(pod=POD, share_process_namespace=True)
    running = await pods.start("sleep 1000", sandbox=sandbox, labels={"kybern.io/hash": "abc"}, attempt=4)
    other = DockerRuntime(DockerConfig(endpoint=docker.endpoint))
    try:
        assert list(await other.sandboxes()) == [sandbox]
        (found,) = await other.containers()
        assert found == await pods.show(running)
        assert (found.pod, found.name, found.attempt, found.state) == (POD, "main", 4, ContainerState.RUNNING)
        assert found.labels == {"kybern.io/hash": "abc"}
        # The new one knows as well what the sandbox shares.
        config = ContainerConfig("side", "busybox", args=("cat", "/proc/1/comm"))
        made = await other.create_container(sandbox, config)
        await other.start_container(made)
        assert b"".join([data async for data in other.logs(made, FOLLOW)]) == b"pause\n"
    finally:
        await other.close()


async def test_process_1_of_a_shared_namespace_reaps_and_ends_at_once(docker: Engine, pods: Pods) -> None:
    sandbox = await pods.sandbox(share_process_namespace=True)
    # The subshell's child outlives its parent, falls to process 1, and ends there.
    script = "(sleep 0.3 & echo $! > /tmp/pid); cat /proc/$(cat /tmp/pid)/stat | cut -d' ' -f4; sleep 1; ls /proc"
    said = (await pods.says(script, sandbox=sandbox)).split()
    assert said[0] == "1"
    assert "zombie" not in await pods.says("cat /proc/[0-9]*/status", sandbox=sandbox, name="look")
    await pods.runtime.stop_sandbox(sandbox.id)
    state = docker.request("GET", f"/containers/{sandbox.id}/json")["State"]
    assert state["ExitCode"] == 0, "it was killed instead of ending by itself"


async def test_surroundings_of_a_process(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from outside")
    mounts = [Mount(tmp_path, "/mnt/rw"), Mount(tmp_path / "in", "/etc/hosts", read_only=True)]
    script = """
    exec 2>/dev/null; echo $GREETING; pwd; id -u; id -g; id -G; cat /etc/hosts; echo; echo inside > /mnt/rw/out
    echo x > /etc/hosts || echo hosts-ro; echo x > /file || echo root-ro; grep -E 'CapEff|NoNewPrivs' /proc/self/status
    """
    open_for_all(tmp_path)
    said = await pods.says(
        script,
        env=[("GREETING", "hello $USER")],
        working_dir="/tmp",
        mounts=mounts,
        security=Security(
            user="1000:1000",
            supplemental_groups=(2000,),
            read_only_root=True,
            allow_privilege_escalation=False,
            drop_capabilities=("ALL",),
        ),
    )
    lines = said.split("\n")
    assert lines[:6] == ["hello $USER", "/tmp", "1000", "1000", "1000 2000", "from outside"]
    assert {"hosts-ro", "root-ro", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"} <= set(lines)
    assert (tmp_path / "out").read_text() == "inside\n"


async def test_capabilities_and_the_images_own_command(docker: Engine, pods: Pods) -> None:
    docker.load_busybox("greeter:1", 'ENTRYPOINT ["echo","entry"]')
    security = Security(drop_capabilities=("ALL",), add_capabilities=("NET_BIND_SERVICE",))
    said = await pods.says("grep CapEff /proc/self/status", security=security)
    assert said.split() == ["CapEff:", "0000000000000400"]
    assert await pods.says("", image="greeter:1", command=(), args=("argument",)) == "entry argument\n"
    assert await pods.says("", image="greeter:1", command=("echo", "instead"), args=()) == "instead\n"


async def test_limits_reach_the_kernel_and_low_scores_do_not_hinder_a_start(pods: Pods) -> None:
    limits = Limits(
        cpu_shares=512, cpu_period_us=100_000, cpu_quota_us=50_000, memory_bytes=1 << 26, oom_score_adj=-997
    )
    container = await pods.start("cat /proc/self/oom_score_adj; sleep 1000", limits=limits)
    usage = {each.container_id: each for each in await pods.runtime.usage()}
    assert usage[container].memory_working_set_bytes > 0
    assert usage[container].cpu_nanoseconds > 0
    score = int((await anext(aiter(pods.runtime.logs(container, FOLLOW)))).decode())
    # Without CAP_SYS_RESOURCE it is zero; with it, what was asked for.
    assert score in (0, -997)


async def test_usage_by_the_engine_is_about_what_the_kernels_files_say(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine has no figures for a sandbox whose network it does not know.
    sandbox = await pods.sandbox(host_network=True)
    await pods.start("head -c 1000000 /dev/zero | md5sum; sleep 1000", sandbox=sandbox)
    (direct,) = await pods.runtime.usage()
    monkeypatch.setattr("node.runtime.cgroups.usage", lambda *_: None)
    (asked,) = await pods.runtime.usage()
    assert asked.container_id == direct.container_id
    assert asked.cpu_nanoseconds >= direct.cpu_nanoseconds > 0
    assert asked.memory_working_set_bytes > 0


async def test_events_name_the_pod_and_miss_nothing_since_the_call(pods: Pods) -> None:
    events = pods.runtime.events()
    sandbox = await pods.sandbox(pod=POD)
    other = await pods.sandbox()
    await pods.ended(await pods.start("exit 1", sandbox=other))
    seen = []
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            seen.append(event.pod)
            if len(seen) == 4:
                break
    # Two sandboxes started; the container started and ended.
    assert seen == [sandbox.pod, other.pod, other.pod, other.pod]
