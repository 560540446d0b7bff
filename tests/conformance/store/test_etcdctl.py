"""Debian's etcdctl 3.4 against three real members: every command that people have for a store but `check perf`."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conformance.store.group import ETCDCTL, QUOTA, Group, lines, until


def test_put_get_and_del_with_ranges_and_revisions(group: Group, prefix: str) -> None:
    assert group.etcdctl("put", f"{prefix}a", "1") == "OK"
    first = group.json("put", f"{prefix}b", "2")["header"]["revision"]
    group.etcdctl("put", f"{prefix}a", "3")
    assert group.etcdctl("get", f"{prefix}a").splitlines() == [f"{prefix}a", "3"]
    assert group.etcdctl("get", f"{prefix}a", f"--rev={first}").splitlines() == [f"{prefix}a", "1"]
    assert group.etcdctl("get", "--prefix", prefix, "--print-value-only").split() == ["3", "2"]
    assert group.etcdctl("get", f"{prefix}a", f"{prefix}b", "--keys-only").split() == [f"{prefix}a"]
    assert group.etcdctl("get", "--prefix", prefix, "--order=DESCEND", "--limit=1").split() == [f"{prefix}b", "2"]
    assert group.etcdctl("get", "--prefix", prefix, "--consistency=s", "--print-value-only").split() == ["3", "2"]
    removed = group.etcdctl("del", "--prefix", prefix, "--prev-kv").splitlines()
    assert removed == ["2", f"{prefix}a", "3", f"{prefix}b", "2"]
    assert group.etcdctl("get", "--prefix", prefix) == ""
    assert len(group.etcdctl("get", "--prefix", prefix, f"--rev={first}").split()) == 4
    code, _, err = group.try_etcdctl("get", f"{prefix}a", "--rev=999999")
    assert code != 0
    assert "required revision is a future revision" in err


def test_every_member_answers_alike(group: Group, prefix: str) -> None:
    for name, address in group.clients.items():
        group.etcdctl("put", prefix + name, name, endpoints=[address])
    for address in group.clients.values():
        found = group.etcdctl("get", "--prefix", prefix, "--print-value-only", endpoints=[address])
        assert found.split() == ["s1", "s2", "s3"]


def test_a_transaction_is_done_once_and_wholly(group: Group, prefix: str) -> None:
    key = f"{prefix}k"
    guarded = f'mod("{key}") = "0"\n\nput {key} mine\nput {prefix}other 1\n\nget {key}\n\n'
    assert group.etcdctl("txn", stdin=guarded).split() == ["SUCCESS", "OK", "OK"]
    assert group.etcdctl("txn", stdin=guarded).split() == ["FAILURE", key, "mine"]
    assert group.etcdctl("get", "--prefix", prefix, "--keys-only").split() == [key, f"{prefix}other"]


def test_a_watch_has_the_past_and_what_was_before(group: Group, prefix: str) -> None:
    key = f"{prefix}k"
    first = group.json("put", key, "1")["header"]["revision"]
    group.etcdctl("put", key, "2")
    with group.running("watch", "--prefix", prefix, f"--rev={first}", "--prev-kv") as watch:
        assert lines(watch, 3) == ["PUT", key, "1"]
        # What was before, then what is.
        assert lines(watch, 5) == ["PUT", key, "1", key, "2"]
        group.etcdctl("del", key)
        assert lines(watch, 5) == ["DELETE", key, "2", key, ""]


def test_a_lease_is_kept_alive_and_ends(group: Group, prefix: str) -> None:
    said = group.etcdctl("lease", "grant", "3")
    match = re.fullmatch(r"lease ([0-9a-f]+) granted with TTL\(3s\)", said)
    assert match is not None
    lease = match[1]
    group.etcdctl("put", f"{prefix}k", "v", f"--lease={lease}")
    with group.running("lease", "keep-alive", lease) as keeper:
        # Longer than it lives by itself.
        assert lines(keeper, 5) == [f"lease {lease} keepalived with TTL(3)"] * 5
    assert f"{prefix}k" in group.etcdctl("lease", "timetolive", lease, "--keys")
    assert lease in group.etcdctl("lease", "list")
    until(lambda: group.etcdctl("get", f"{prefix}k") == "", "the key goes with its lease")
    assert group.etcdctl("lease", "timetolive", lease) == f"lease {lease} already expired"
    other = group.etcdctl("lease", "grant", "600").split()[1]
    group.etcdctl("put", f"{prefix}k", "v", f"--lease={other}")
    assert group.etcdctl("lease", "revoke", other) == f"lease {other} revoked"
    assert group.etcdctl("get", f"{prefix}k") == ""


def test_compaction_forgets_and_defrag_does_no_harm(group: Group, prefix: str) -> None:
    key = f"{prefix}k"
    old = group.json("put", key, "1")["header"]["revision"]
    new = group.json("put", key, "2")["header"]["revision"]
    assert group.etcdctl("compact", str(new)) == f"compacted revision {new}"
    code, _, err = group.try_etcdctl("get", key, f"--rev={old}")
    assert code != 0
    assert "required revision has been compacted" in err
    assert group.etcdctl("get", key, f"--rev={new}").split() == [key, "2"]
    code, out, err = group.try_etcdctl("watch", key, f"--rev={old}")
    assert code != 0
    assert "required revision has been compacted" in out + err
    assert group.etcdctl("defrag").count("Finished defragmenting etcd member") == 3
    assert group.etcdctl("get", key, "--print-value-only") == "2"


def test_a_snapshot_is_whole(group: Group, prefix: str, tmp_path: Path) -> None:
    revision = group.json("put", f"{prefix}k", "in the snapshot")["header"]["revision"]
    file = tmp_path / "snapshot"
    address = group.clients[group.leader()]
    assert f"Snapshot saved at {file}" in group.etcdctl("snapshot", "save", str(file), endpoints=[address])
    data = file.read_bytes()
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    info = json.loads(group.kybern("snapshot", "status", str(file), "--output=json"))
    assert info["revision"] >= revision
    assert info["sha256"] == data[-32:].hex()
    # etcd's own tool reads its data base alone, and says so; a file is never restored in part.
    code, _, err = group.try_etcdctl("snapshot", "status", str(file))
    assert (code, "invalid database" in err) == (1, True)


def test_endpoints_are_healthy_and_have_the_same_state(group: Group, prefix: str) -> None:
    group.etcdctl("put", f"{prefix}k", "1")
    _, out, err = group.try_etcdctl("endpoint", "health", "--cluster")
    assert (out + err).count("is healthy") == 3
    statuses = [one["Status"] for one in group.json("endpoint", "status", "--cluster")]
    assert len({s["header"]["member_id"] for s in statuses}) == 3
    (leader,) = {s["leader"] for s in statuses}
    assert leader in {s["header"]["member_id"] for s in statuses}
    assert {s["dbSizeQuota"] for s in statuses if "dbSizeQuota" in s} <= {QUOTA}
    revision = min(s["header"]["revision"] for s in statuses)
    hashes = group.json("endpoint", "hashkv", "--cluster", f"--rev={revision}")
    assert len({one["HashKV"]["hash"] for one in hashes}) == 1
    assert len(hashes) == 3
    members = group.json("member", "list")["members"]
    assert {m["name"]: m["clientURLs"] for m in members} == {n: [f"https://{a}"] for n, a in group.clients.items()}


def test_the_alarm_of_a_full_store_refuses_what_grows_alone(group: Group, prefix: str) -> None:
    assert group.etcdctl("alarm", "list") == ""
    code, err = 0, ""
    for n in range(QUOTA // 1_000_000 + 2):
        code, _, err = group.try_etcdctl("put", f"{prefix}{n}", stdin="v" * 1_000_000)
        if code != 0:
            break
    assert code != 0
    assert "database space exceeded" in err
    for address in group.clients.values():
        assert "alarm:NOSPACE" in group.etcdctl("alarm", "list", endpoints=[address])
    code, _, err = group.try_etcdctl("put", f"{prefix}small", "1")
    assert "database space exceeded" in err
    assert group.etcdctl("get", f"{prefix}0", "--keys-only") == f"{prefix}0"
    group.etcdctl("del", "--prefix", prefix)
    revision = group.json("get", prefix)["header"]["revision"]
    group.etcdctl("compact", str(revision))
    # Space alone is not enough: a person must say that it was seen to.
    code, _, _ = group.try_etcdctl("put", f"{prefix}small", "1")
    assert code != 0
    assert "alarm:NOSPACE" in group.etcdctl("alarm", "disarm")
    assert group.etcdctl("alarm", "list") == ""
    assert group.etcdctl("put", f"{prefix}small", "1") == "OK"


def test_one_holds_a_lock_at_a_time(group: Group, prefix: str) -> None:
    with group.running("lock", f"{prefix}lock", "--ttl=5") as first:
        (held,) = lines(first, 1)
        assert held.startswith(f"{prefix}lock/")
        with group.running("lock", f"{prefix}lock", "--ttl=5") as second:
            until(lambda: len(group.etcdctl("get", "--prefix", f"{prefix}lock", "--keys-only").split()) == 2, "waits")
            first.terminate()
            (next_held,) = lines(second, 1)
            assert next_held.startswith(f"{prefix}lock/")
            assert next_held != held
    done = subprocess.run(
        group.command("lock", f"{prefix}other", "echo", "inside"),
        env=ETCDCTL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "inside"


def test_one_is_elected_at_a_time(group: Group, prefix: str) -> None:
    name = f"{prefix}election"
    with group.running("elect", name, "first") as first:
        key, value = lines(first, 2)
        assert (key.startswith(f"{name}/"), value) == (True, "first")
        with group.running("elect", "--listen", name) as listener:
            assert lines(listener, 2) == [key, "first"]
            with group.running("elect", name, "second") as second:
                until(lambda: len(group.etcdctl("get", "--prefix", name, "--keys-only").split()) == 2, "waits")
                first.terminate()
                assert lines(second, 2)[1] == "second"
                assert lines(listener, 2)[1] == "second"


@pytest.mark.parametrize("words", [("user", "list"), ("role", "list"), ("auth", "enable")])
def test_what_is_not_there_is_said_to_be(group: Group, words: tuple[str, ...]) -> None:
    code, _, err = group.try_etcdctl(*words)
    assert code != 0
    assert "code = Unimplemented" in err
