"""`kybern store` against three real members."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.conformance.store.group import QUOTA, Group, until


def test_status_shows_every_member(group: Group) -> None:
    leader = group.leader()
    rows = json.loads(group.kybern("status", "--output=json"))
    assert [row["name"] for row in rows if row["leader"]] == [leader]
    assert {row["name"]: row["address"] for row in rows} == group.clients
    assert {row["quota"] for row in rows} == {QUOTA}
    heading, *lines = group.kybern("status").splitlines()
    assert heading.split()[:5] == ["NAME", "ADDRESS", "STATE", "ROLE", "REVISION"]
    assert sorted(line.split()[2] for line in lines) == ["Serving"] * 3
    assert sorted(line.split()[3] for line in lines) == ["follower", "follower", "leader"]


def test_a_member_that_is_stopped_is_down_and_the_rest_goes_on(group: Group, prefix: str) -> None:
    lost = next(name for name in group.clients if name != group.leader())
    group.processes[lost].send_signal(signal.SIGKILL)
    group.processes[lost].wait()
    try:
        done = group.try_kybern("status")
        assert done.returncode == 1
        assert "Down" in done.stdout
        assert f"{group.clients[lost]}: connection refused" in done.stderr
        assert len(group.kybern("member", "list").splitlines()) == 4
        group.kybern("compact")
    finally:
        group.start(lost)
        group.until_ready(lost)
    until(lambda: group.try_kybern("status").returncode == 0, "all are well again")


def test_flags_in_place_of_the_configuration(group: Group, tmp_path: Path) -> None:
    tls = group.tls
    flags = [f"--config={tmp_path}/absent", f"--cacert={tls.ca}", f"--cert={tls.cert}", f"--key={tls.key}"]
    rows = json.loads(group.kybern(*flags, f"--endpoints={group.clients['s2']}", "status", "--output=json"))
    assert [row["name"] for row in rows] == ["s2"]
    done = group.try_kybern(f"--config={tmp_path}/absent", "status")
    assert done.returncode == 1
    assert "absent" in done.stderr
    assert "Traceback" not in done.stderr
    done = group.try_kybern(f"--cacert={tls.ca}", "status")
    assert "go together" in done.stderr


def test_history_and_alarms(group: Group, prefix: str) -> None:
    group.etcdctl("put", f"{prefix}k", "1")
    revision = group.json("put", f"{prefix}k", "2")["header"]["revision"]
    assert group.kybern("compact", str(revision)) == f"history before revision {revision} is forgotten"
    done = group.try_kybern("compact", str(revision))
    assert (done.returncode, "has been compacted" in done.stderr) == (1, True)
    assert group.kybern("defrag").count("is defragmented") == 3
    assert group.kybern("alarm", "list").split() == ["MEMBER", "ALARM"]
    assert group.kybern("alarm", "disarm") == "no alarm was on"


def test_an_alarm_is_shown_and_cleared(group: Group, prefix: str) -> None:
    for n in range(QUOTA // 1_000_000 + 1):
        group.try_etcdctl("put", f"{prefix}{n}", stdin="v" * 1_000_000)
    try:
        status = group.try_kybern("status")
        assert status.returncode == 1
        assert "alarm:NOSPACE" in status.stderr
        (row,) = json.loads(group.kybern("alarm", "list", "--output=json"))
        assert row["alarm"] == "NOSPACE"
    finally:
        group.etcdctl("del", "--prefix", prefix)
        group.kybern("compact")
        said = group.kybern("alarm", "disarm")
    assert said == f"NOSPACE of member {row['member']} is cleared"
    assert group.try_kybern("status").returncode == 0


def test_snapshots_are_saved_checked_and_looked_into(group: Group, prefix: str, tmp_path: Path) -> None:
    revision = group.json("put", f"{prefix}k", "1")["header"]["revision"]
    file = tmp_path / "snapshot"
    assert "its checksum is right" in group.kybern("snapshot", "save", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert "whole" in group.kybern("snapshot", "verify", str(file))
    info = json.loads(group.kybern("snapshot", "status", str(file), "--output=json"))
    assert info["revision"] >= revision
    assert group.try_kybern("snapshot", "save", str(file)).returncode == 1
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    done = group.try_kybern("snapshot", "verify", str(file))
    assert (done.returncode, "was changed" in done.stderr) == (1, True)


def test_members_are_named_or_numbered(group: Group) -> None:
    rows = json.loads(group.kybern("member", "list", "--output=json"))
    assert {row["name"] for row in rows} == set(group.clients)
    assert not any(row["learner"] for row in rows)
    done = group.try_kybern("move-leader", "nobody")
    assert done.returncode == 1
    assert "there is no member nobody" in done.stderr
    assert "s1, s2, s3" in done.stderr
