"""Scenarios of what containers get and how they are watched, on virtual time."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import msgspec

from kybern.api import resources
from node.agent.restarts import spec_hash
from node.runtime.interface import Container, ExecResult
from tests.unit.node.agent.bench import Bench, container, pod, scenario


def test_images_that_cannot_be_pulled(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.runtime.fail_pull("bad:1")
        node.pod("bad", containers=[container(image="bad:1")])
        node.pod("never", containers=[container(image="other:1", imagePullPolicy="Never")])
        node.pod("wrong", containers=[container(image="NOT AN IMAGE")])

        def reason(name: str) -> str:
            return str(node.entry(name).get("state", {}).get("waiting", {}).get("reason"))

        await node.until(lambda: reason("bad") == "ErrImagePull")
        assert await node.until(lambda: reason("bad") == "ImagePullBackOff") < 2
        assert reason("never") == "ErrImageNeverPull"
        assert reason("wrong") == "InvalidImageName"
        node.runtime.fail_pull("bad:1", heal=True)
        await node.running("bad")
        assert node.reasons("bad")[:4] == ["Pulling", "Failed", "BackOff", "Pulled"]
        pulls = [about for name, about in node.runtime.calls if name == "pull_image"]
        assert pulls == ["bad:1", "bad:1"]

    scenario(tmp_path, steps)


def test_an_image_is_pulled_once_for_many_and_always_when_asked(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.runtime._pull_seconds = 2.0
        node.start()
        for number in range(4):
            node.pod(f"p{number}")
        await node.running(*(f"p{number}" for number in range(4)))
        pulls = [about for name, about in node.runtime.calls if name == "pull_image"]
        assert pulls == ["busybox:1"]
        node.pod("always", containers=[container(imagePullPolicy="Always")])
        await node.running("always")
        pulls = [about for name, about in node.runtime.calls if name == "pull_image"]
        assert len(pulls) == 2

    scenario(tmp_path, steps)


def test_pull_secrets_are_used(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        logins: list[Any] = []
        pull = node.runtime.pull_image

        async def watched(reference: str, auth: Any = None) -> Any:
            logins.append(auth)
            return await pull(reference, auth)

        node.runtime.pull_image = watched  # type: ignore[method-assign]
        config = {"auths": {"reg.example:5000": {"auth": base64.b64encode(b"me:secret").decode()}}}
        data = {".dockerconfigjson": base64.b64encode(msgspec.json.encode(config)).decode()}
        metadata = {"name": "login", "namespace": "default"}
        secret = {"metadata": metadata, "type": "kubernetes.io/dockerconfigjson", "data": data}
        node.client.put(resources.SECRETS, secret)
        node.start()
        node.pod("p", containers=[container(image="reg.example:5000/app:1")], imagePullSecrets=[{"name": "login"}])
        await node.running("p")
        assert logins == [{"username": "me", "password": "secret"}]

    scenario(tmp_path, steps)


def test_deleting_a_pod_gives_up_its_pull(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.runtime._pull_seconds = 3600.0
        node.start()
        node.pod("p")
        await asyncio.sleep(5)
        await node.client.delete(resources.PODS, "p", "default")
        assert await node.until(lambda: not node.exists("p")) < 1
        assert not await node.runtime.sandboxes()

    scenario(tmp_path, steps)


def test_probes_decide_about_readiness_and_restarts(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        tcp = {"tcpSocket": {"port": 80}, "periodSeconds": 2, "failureThreshold": 3}
        node.prober.bad.add("main")
        node.start()
        node.pod("p", containers=[container(readinessProbe=tcp)])
        await node.running("p")
        await asyncio.sleep(10)
        assert node.condition("p", "Ready")["status"] == "False"
        assert "Unhealthy" in node.reasons("p")
        node.prober.bad.clear()
        assert await node.until(lambda: node.condition("p", "Ready")["status"] == "True") <= 2.5
        node.prober.bad.add("main")
        assert 3.9 <= await node.until(lambda: node.condition("p", "Ready")["status"] == "False") <= 6.5
        assert node.entry("p")["restartCount"] == 0

    scenario(tmp_path, steps)


def test_a_dead_container_is_restarted(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        tcp = {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 3, "initialDelaySeconds": 5}
        node.prober.bad.add("main")
        node.start()
        node.pod("p", containers=[container(livenessProbe=tcp)])
        await node.running("p")
        took = await node.until(lambda: node.entry("p")["restartCount"] == 1)
        assert 6.5 <= took <= 8.5
        assert node.entry("p")["lastState"]["terminated"]["exitCode"] == 143
        assert "Killing" in node.reasons("p")

    scenario(tmp_path, steps)


def test_until_it_has_started_nothing_else_is_asked(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        startup = {"exec": {"command": ["startup"]}, "periodSeconds": 3, "failureThreshold": 10}
        other = {"tcpSocket": {"port": 80}, "periodSeconds": 1}
        node.prober.bad.add("main")
        node.start()
        node.pod("p", containers=[container(startupProbe=startup, livenessProbe=other, readinessProbe=other)])
        await node.running("p")
        await asyncio.sleep(20)
        assert not node.entry("p")["started"]
        assert len(node.prober.asked) == 7
        node.prober.bad.clear()
        await node.until(lambda: node.condition("p", "Ready")["status"] == "True")
        assert node.entry("p")["started"]

    scenario(tmp_path, steps)


def test_hooks_run_after_the_start_and_before_the_stop(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        done: list[tuple[float, str]] = []

        def on_exec(_: Container, command: Any) -> ExecResult:
            done.append((asyncio.get_running_loop().time(), command[0]))
            return ExecResult(0, b"")

        node.runtime.on_exec = on_exec
        hooks = {"postStart": {"exec": {"command": ["hello"]}}, "preStop": {"sleep": {"seconds": 7}}}
        node.start()
        node.pod("p", containers=[container(lifecycle=hooks)])
        await node.running("p")
        assert [name for _, name in done] == ["hello"]
        await node.client.delete(resources.PODS, "p", "default")
        took = await node.until(lambda: not node.exists("p"))
        assert 7 <= took < 8

    scenario(tmp_path, steps)


def test_a_hook_that_fails_ends_the_container(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.runtime.on_exec = lambda _, command: ExecResult(1, b"no")
        node.start()
        node.pod("p", containers=[container(lifecycle={"postStart": {"exec": {"command": ["x"]}}})])
        await node.until(lambda: node.entry("p").get("restartCount") == 1)
        assert "FailedPostStartHook" in node.reasons("p")

    scenario(tmp_path, steps)


def test_a_new_image_replaces_the_container(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("p")
        await node.running("p")
        await node.client.patch(
            resources.PODS, "p", {"spec": {"containers": [container(image="busybox:2")]}}, "default"
        )
        await node.until(lambda: node.entry("p")["restartCount"] == 1)
        (only,) = await node.containers("p")
        assert only.image == "busybox:2"
        assert node.status("p")["observedGeneration"] == 2

    scenario(tmp_path, steps)


def test_what_a_container_gets(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        secret = {"metadata": {"name": "s", "namespace": "default"}, "data": {"PASSWORD": "aHVudGVyMg=="}}
        node.client.put(resources.SECRETS, secret)
        config = {"metadata": {"name": "c", "namespace": "default"}, "data": {"colour": "blue"}}
        node.client.put(resources.CONFIG_MAPS, config)
        api = {"metadata": {"name": "kubernetes", "namespace": "default"}}
        api["spec"] = {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 6443}]}  # type: ignore[dict-item]
        node.client.put(resources.SERVICES, api)
        node.start()
        wanted = container(
            command=["run", "$(GREETING)", "$(UNKNOWN)", "$$(GREETING)"],
            workingDir="/srv",
            env=[
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "GREETING", "value": "hello $(NAME)"},
                {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "colour"}}},
            ],
            envFrom=[{"secretRef": {"name": "s"}, "prefix": "DB_"}],
            resources={"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "64Mi"}},
            volumeMounts=[{"name": "config", "mountPath": "/etc/app", "readOnly": True}],
            securityContext={"runAsUser": 1000, "runAsGroup": 3000, "capabilities": {"drop": ["ALL"]}},
        )
        node.pod(
            "web",
            containers=[wanted],
            volumes=[{"name": "config", "configMap": {"name": "c"}}],
            hostAliases=[{"ip": "10.1.2.3", "hostnames": ["db", "db.example"]}],
        )
        await node.running("web")
        (only,) = await node.containers("web")
        made = node.runtime.config(only.id)
        assert made.command == ("run", "hello web", "$(UNKNOWN)", "$(GREETING)")
        assert made.working_dir == "/srv"
        env = dict(made.env)
        assert (env["NAME"], env["IP"], env["LIMIT"]) == ("web", "10.244.0.2", "64")
        assert (env["GREETING"], env["COLOUR"], env["DB_PASSWORD"]) == ("hello web", "blue", "hunter2")
        assert (env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT_HTTPS"]) == ("10.96.0.1", "443")
        assert (made.limits.cpu_shares, made.limits.cpu_quota_us, made.limits.memory_bytes) == (256, 50_000, 2**26)
        assert (made.security.user, made.security.drop_capabilities) == ("1000:3000", ("ALL",))
        mounts = {m.container_path: m for m in made.mounts}
        assert set(mounts) == {"/etc/app", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/dev/termination-log"}
        assert mounts["/etc/app"].read_only
        assert (mounts["/etc/app"].host_path / "colour").read_text() == "blue"
        resolv = mounts["/etc/resolv.conf"].host_path.read_text()
        assert resolv.startswith("search default.svc.cluster.local svc.cluster.local cluster.local")
        assert "nameserver 10.96.0.10\n" in resolv
        assert "options ndots:5\n" in resolv
        hosts = mounts["/etc/hosts"].host_path.read_text()
        assert "10.244.0.2\tweb\n" in hosts
        assert "10.1.2.3\tdb\tdb.example\n" in hosts
        assert node.status("web")["qosClass"] == "Burstable"

    scenario(tmp_path, steps)


def test_what_is_missing_is_waited_for(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}]
        node.pod("env", containers=[container(env=env)])
        node.pod("volume", volumes=[{"name": "v", "configMap": {"name": "late"}}])
        await node.until(
            lambda: node.entry("env").get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError"
        )
        await asyncio.sleep(5)
        assert "FailedMount" in node.reasons("volume")
        assert 'configmap "late" not found' in node.entry("volume")["state"]["waiting"]["message"]
        config = {"metadata": {"name": "late", "namespace": "default"}, "data": {"k": "v"}}
        node.client.put(resources.CONFIG_MAPS, config)
        await node.until(lambda: node.status("env")["phase"] == node.status("volume")["phase"] == "Running", 60)

    scenario(tmp_path, steps)


def test_files_of_volumes_follow_their_sources(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        config: dict[str, Any] = {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "old"}}
        node.client.put(resources.CONFIG_MAPS, config)
        node.start()
        labels = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
        volumes = [{"name": "c", "configMap": {"name": "c"}}, {"name": "d", "downwardAPI": {"items": labels}}]
        node.pod("p", volumes=volumes)
        await node.running("p")
        found = node.client.read(resources.PODS, "p", "default")
        assert found is not None
        root = tmp_path / "pods" / found["metadata"]["uid"] / "volumes"
        assert (root / "c" / "k").read_text() == "old"
        node.client.put(resources.CONFIG_MAPS, {**config, "data": {"k": "new"}})
        await node.client.patch(resources.PODS, "p", {"metadata": {"labels": {"a": "b"}}}, "default")
        await asyncio.sleep(1)
        assert (root / "d" / "labels").read_text() == 'a="b"'
        await asyncio.sleep(60)
        assert (root / "c" / "k").read_text() == "new"

    scenario(tmp_path, steps)


def test_what_a_container_leaves_as_a_message(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("file", containers=[container(command=["sleep", "5"])], restartPolicy="Never")
        fallback = container(command=["sh", "-c", "echo it broke; exit 2"])
        fallback["terminationMessagePolicy"] = "FallbackToLogsOnError"
        node.pod("log", containers=[fallback], restartPolicy="Never")
        await node.running("file")
        (only,) = await node.containers("file")
        mounts = {m.container_path: m.host_path for m in node.runtime.config(only.id).mounts}
        mounts["/dev/termination-log"].write_text("done with it")
        await node.until(lambda: node.status("file")["phase"] == "Succeeded")
        assert node.entry("file")["state"]["terminated"]["message"] == "done with it"
        await node.until(lambda: node.status("log")["phase"] == "Failed")
        assert node.entry("log")["state"]["terminated"]["message"] == "it broke\n"
        # An agent that restarts, when the file is gone with the pod's volumes, does not unsay it.
        await node.stop()
        node.start()
        await asyncio.sleep(20)
        assert node.entry("file")["state"]["terminated"]["message"] == "done with it"

    scenario(tmp_path, steps)


def test_a_status_that_others_changed_is_set_right(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("p")
        await node.running("p")
        await asyncio.sleep(5)
        wrong = [{"type": "Ready", "status": "False"}, {"type": "example.com/x", "status": "True"}]
        await node.client.patch(resources.PODS, "p", {"status": {"conditions": wrong}}, "default", subresource="status")
        await node.until(lambda: node.condition("p", "Ready").get("status") == "True")

    scenario(tmp_path, steps)


def test_the_hash_follows_name_and_image_alone() -> None:
    from tests.unit.node.agent import facts

    one, two = (facts.pod(facts.container(env=[{"name": "A", "value": v}])).spec.containers[0] for v in "xy")
    other = facts.pod(facts.container(image="image:2")).spec.containers[0]
    assert spec_hash(one) == spec_hash(two) != spec_hash(other)


def test_pods_of_one_name_in_two_namespaces_are_two(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("p")
        other = pod("p")
        other["metadata"]["namespace"] = "other"
        node.client.put(resources.PODS, other)
        await node.running("p")
        await asyncio.sleep(5)
        assert sorted(c.pod.namespace for c in await node.containers()) == ["default", "other"]

    scenario(tmp_path, steps)
