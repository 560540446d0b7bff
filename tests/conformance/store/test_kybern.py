"""`kybern store` against three real members."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from kybern import __version__
from store.mvcc.level import LEVEL
from tests.conformance.store.group import QUOTA, Group, until
from tests.integration.store.serving import Certificates


def test_status_shows_every_member(group: Group) -> None:
    leader = group.leader()
    rows = json.loads(group.kybern("status", "--output=json"))
    assert [row["name"] for row in rows if row["leader"]] == [leader]
    assert {row["name"]: row["address"] for row in rows} == group.clients
    assert {row["quota"] for row in rows} == {QUOTA}
    assert {(row["version"], row["level"], row["highest_level"]) for row in rows} == {(__version__, str(LEVEL), LEVEL)}
    heading, *lines = group.kybern("status").splitlines()
    assert heading.split()[:5] == ["NAME", "ADDRESS", "STATE", "ROLE", "REVISION"]
    assert heading.split()[-3:] == ["VERSION", "LEVEL", "ID"]
    assert {tuple(line.split()[-3:-1]) for line in lines} == {(__version__, str(LEVEL))}
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
        (line,) = (line for line in done.stdout.splitlines() if "Down" in line)
        assert line.split() == [lost, group.clients[lost], "Down"]
        assert len(group.kybern("member", "list").splitlines()) == 4
        done = group.try_kybern("defrag")
        assert (done.returncode, done.stdout.count("is defragmented")) == (1, 2)
        assert f"{group.clients[lost]}: connection refused" in done.stderr
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


def test_connections_that_cannot_be_are_explained(group: Group, tmp_path: Path) -> None:
    tls, (address, *_) = group.tls, group.clients.values()
    stranger = Certificates(tmp_path).master()

    def said(endpoint: str, cacert: Path, cert: Path, key: Path) -> list[str]:
        flags = [f"--endpoints={endpoint}", f"--cacert={cacert}", f"--cert={cert}", f"--key={key}"]
        done = group.try_kybern(*flags, "member", "list")
        assert (done.returncode, done.stdout) == (1, "")
        lines = done.stderr.splitlines()
        # Nothing of gRPC's own.
        assert lines[0].startswith("kybern: ")
        assert all(line.startswith("  ") for line in lines[1:])
        return lines

    for endpoint in ("127.0.0.1", "127.0.0.1:x", f"http://{address}"):
        assert said(endpoint, tls.ca, tls.cert, tls.key) == [
            f"kybern: --endpoints: '{endpoint}' is not of the form HOST:PORT"
        ]
    cannot = f"kybern: no member of the store can do this now: {address}: "
    assert (
        said(address, stranger.ca, tls.cert, tls.key)[0] == f"{cannot}its certificate is expired or of another cluster"
    )
    assert "does not take the certificate" in said(address, tls.ca, stranger.cert, stranger.key)[0]
    assert "are not a certificate with its key" in said(address, tls.ca, tls.cert, stranger.key)[0]
    assert "is not a PEM certificate" in said(address, group.file("s1"), tls.cert, tls.key)[0]
    assert said(address, tmp_path / "x", tls.cert, tls.key) == [
        f"kybern: cannot read {tmp_path}/x: No such file or directory"
    ]
    peers = group.configs["s1"].peer_address
    assert "does not speak gRPC: is it another port?" in said(peers, tls.ca, tls.cert, tls.key)[0]


def test_what_is_asked_for_wrongly_is_not_done(group: Group) -> None:
    before = group.json("member", "list")["members"]
    for address in ("127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:1"):
        done = group.try_kybern("member", "add", address)
        assert (done.returncode, "is not of the form HOST:PORT" in done.stderr) == (1, True)
    done = group.try_kybern("member", "add", group.configs["s2"].peer_address)
    assert (done.returncode, "`kybern store member list` shows whose it is" in done.stderr) == (1, True)
    done = group.try_kybern("member", "promote", "s1")
    assert (done.returncode, "`kybern store member list` shows who votes" in done.stderr) == (1, True)
    assert group.json("member", "list")["members"] == before
    assert group.try_kybern("status", "--output=xml").returncode == 2


def test_an_output_that_takes_nothing_is_said_to_be_one(group: Group) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*group.kybern_command("s1"), "member", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "kybern: [Errno 28] No space left on device\n"


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
        assert "the alarm NOSPACE of member s" in status.stderr
        assert "`kybern store alarm disarm`" in status.stderr
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
    assert (info["revision"] >= revision, info["level"]) == (True, LEVEL)
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
