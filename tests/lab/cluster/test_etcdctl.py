"""Debian's etcdctl against the cluster's store, with what `kybern-lab env` says."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from lab.environment import environment
from tests.lab.cluster.clusters import Cluster

pytestmark = pytest.mark.lab


def test_keys_of_pods_are_listed(hello: Cluster) -> None:
    keys = hello.etcdctl("get", "--prefix", "--keys-only", "/registry/pods").split()
    assert {k.rpartition("/")[2] for k in keys} >= {p["metadata"]["name"] for p in hello.pods("app=hello")}


def test_every_member_tells_its_status(cluster: Cluster) -> None:
    found = json.loads(cluster.etcdctl("endpoint", "status", "--write-out=json"))
    assert len(found) == 3
    leaders = {one["Status"]["leader"] for one in found}
    members = {one["Status"]["header"]["member_id"] for one in found}
    assert len(members) == 3
    assert len(leaders) == 1
    assert leaders < members


def test_a_watch_sees_what_kubectl_writes(cluster: Cluster) -> None:
    given = {**os.environ, **environment(cluster.lab)}
    watch = subprocess.Popen(
        ["etcdctl", "watch", "--prefix", "/registry/configmaps/default/watched"],
        env=given,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout is not None

        def seen() -> bool:
            # Until the watch is there: a write before it is not seen.
            cluster.kubectl("create", "configmap", "watched", "--from-literal=a=1")
            cluster.kubectl("delete", "configmap", "watched")
            os.set_blocking(watch.stdout.fileno(), False)  # type: ignore[union-attr]
            lines = (watch.stdout.read() or "").split()  # type: ignore[union-attr]
            return "PUT" in lines

        cluster.until(seen, "the watch sees a write")
    finally:
        watch.kill()
        watch.wait()
        if watch.stdout is not None:
            watch.stdout.close()
