"""Members that come, vote, lead and go while clients write: by etcdctl and by `kybern store`."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from tests.conformance.store.group import Group, three_members, until
from tests.integration.store import members
from tests.integration.store.serving import HOST
from tests.ports import free_port


@pytest.fixture
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """A group of its own, since its members change."""
    with three_members(tmp_path_factory.mktemp("changing")) as made:
        yield made


def configure(group: Group, name: str) -> str:
    """Write a further member's configuration, with the others' in it; its peer address."""
    peer, client = f"{HOST}:{free_port()}", f"{HOST}:{free_port()}"
    first = group.configs["s1"]
    peers, clients = {**first.members, name: peer}, {**first.clients, name: client}
    settings = {"quota_bytes": first.quota_bytes, "initial_state": "existing"}
    group.configs[name] = members.configure(group.folder, group.certificates, name, peers, clients, **settings)
    return peer


def leave(group: Group, name: str) -> None:
    """Take a member that was removed out of the group: its process ends by itself."""
    group.processes.pop(name).wait(60)
    del group.configs[name]


@contextlib.contextmanager
def writes(group: Group, prefix: str) -> Iterator[list[str]]:
    """Keys that were written and acknowledged meanwhile."""
    written: list[str] = []
    ended = threading.Event()
    endpoints = [group.clients[name] for name in ("s1", "s2", "s3")]

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            key = f"{prefix}{number}"
            if group.try_etcdctl("put", key, "1", endpoints=endpoints)[0] == 0:
                written.append(key)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        ended.set()
        thread.join()


def keys(group: Group, prefix: str) -> set[str]:
    return set(group.etcdctl("get", "--prefix", prefix, "--keys-only").split())


def rows(group: Group) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in json.loads(group.kybern("member", "list", "--output=json"))}


def test_etcdctl_adds_and_removes_members_while_others_write(changing: Group) -> None:
    group = changing
    with writes(group, "w/") as written:
        peer = configure(group, "s4")
        old = [group.clients[name] for name in ("s1", "s2", "s3")]
        added = group.json("member", "add", "s4", f"--peer-urls=https://{peer}", endpoints=old)
        number = f"{added['member']['ID']:x}"
        group.start("s4")
        group.until_ready("s4")
        listed = group.json("member", "list", endpoints=old)["members"]
        assert {m.get("name") for m in listed} == {"s1", "s2", "s3", "s4"}
        assert group.etcdctl("get", "--prefix", "w/", "--limit=1", endpoints=[group.clients["s4"]])
        leader = group.leader()
        target = next(n for n in ("s1", "s2", "s3") if n != leader)
        (member,) = [m for m in listed if m["name"] == target]
        moved = group.etcdctl("move-leader", f"{member['ID']:x}", endpoints=[group.clients[leader]])
        assert "Leadership transferred" in moved
        until(lambda: group.leader() == target, f"{target} leads")
        assert "removed" in group.etcdctl("member", "remove", number, endpoints=old)
        leave(group, "s4")
        assert len(group.json("member", "list")["members"]) == 3
    assert set(written) <= keys(group, "w/")
    assert len(written) > 3


def test_kybern_store_adds_promotes_moves_and_removes(changing: Group) -> None:
    group = changing
    peer = configure(group, "s4")
    said = group.kybern("member", "add", peer, "--learner")
    assert f"at {peer} is added as a learner\nNext, there: " in said
    group.start("s4")
    until(lambda: "s4" in rows(group), "s4 is known by its name")
    until(lambda: group.try_kybern("member", "promote", "s4").returncode == 0, "s4 has caught up")
    group.until_ready("s4")
    assert not rows(group)["s4"]["learner"]
    assert "only promote a learner" in group.try_kybern("member", "promote", "s4").stderr
    assert group.kybern("move-leader", "s4").endswith("(s4) leads")
    until(lambda: group.leader() == "s4", "s4 leads")
    assert "already" in group.try_kybern("member", "add", peer).stderr
    # It hands over before it goes.
    assert group.kybern("member", "remove", "s4").endswith("(s4) is removed")
    leave(group, "s4")
    assert set(rows(group)) == {"s1", "s2", "s3"}
    group.etcdctl("put", "after", "1")
    assert group.try_kybern("status").returncode == 0
