"""Debian's etcdctl 3.4 against our store, and the same commands against a real etcd beside it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.store.serving import Endpoint, Result, etcdctl, start_etcdctl

# Each step: arguments, and standard input where there is some. Run in order on a store of its own.
SCENARIOS: dict[str, list[tuple[list[str], str]]] = {
    "reads": [
        (["put", "a", "1"], ""),
        (["put", "b", "22"], ""),
        (["put", "a", "3"], ""),
        (["put", "dir/x", "x"], ""),
        (["put", "dir/y", "y"], ""),
        (["get", "a"], ""),
        (["get", "absent"], ""),
        (["get", "--prefix", ""], ""),
        (["get", "--prefix", "dir/"], ""),
        (["get", "a", "c"], ""),
        (["get", "c", "a"], ""),
        (["get", "--from-key", "b"], ""),
        (["get", "--prefix", "", "--limit=2"], ""),
        (["get", "--prefix", "", "--keys-only"], ""),
        (["get", "--prefix", "", "--print-value-only"], ""),
        (["get", "--prefix", "", "--order=DESCEND"], ""),
        (["get", "--prefix", "", "--order=ASCEND", "--sort-by=VALUE"], ""),
        (["get", "--prefix", "", "--order=DESCEND", "--sort-by=MODIFY", "--limit=2"], ""),
        (["get", "--prefix", "", "--order=ASCEND", "--sort-by=VERSION"], ""),
        (["get", "--prefix", "", "--order=DESCEND", "--sort-by=CREATE"], ""),
        (["get", "a", "--rev=2"], ""),
        (["get", "--prefix", "", "--rev=3"], ""),
        (["get", "a", "--consistency=s"], ""),
        (["get", "a", "--rev=99"], ""),
        (["get", "--prefix", "", "--limit=1", "--rev=4"], ""),
    ],
    "deletions": [
        (["put", "a", "1"], ""),
        (["put", "b", "2"], ""),
        (["put", "c", "3"], ""),
        (["del", "absent"], ""),
        (["get", "a"], ""),
        (["del", "a", "--prev-kv"], ""),
        (["get", "--prefix", ""], ""),
        (["get", "--prefix", "", "--rev=4"], ""),
        (["put", "a", "4", "--prev-kv"], ""),
        (["del", "--prefix", "", "--prev-kv"], ""),
        (["del", "--from-key", ""], ""),
        (["put", "a", "5"], ""),
    ],
    "puts": [
        (["put", "a", "1"], ""),
        (["put", "a", "2", "--prev-kv"], ""),
        (["put", "a", "--ignore-value"], ""),
        (["get", "a"], ""),
        (["put", "absent", "--ignore-value"], ""),
        (["put", "absent", "1", "--ignore-lease"], ""),
        (["put", "", "1"], ""),
        (["put", "a", "3", "--lease=1234"], ""),
        (["get", "a"], ""),
    ],
    "transactions": [
        (["txn"], 'mod("a") = "0"\n\nput a 1\nput b 2\nget a\n\n\n'),
        (["txn"], 'value("a") = "1"\nver("b") > "0"\n\ndel b\nget --prefix ""\n\nget a\n\n'),
        (["txn"], 'create("a") != "2"\n\nput a wrong\n\nget a\nput a 5\n\n'),
        (["txn"], 'value("absent") < "x"\n\nput wrong 1\n\n\n'),
        (["txn"], "\nput a 1\nput a 2\n\n\n"),
        (["txn"], "\nput a 1\ndel --prefix a\n\n\n"),
        (["txn"], "\ndel a\ndel --prefix a\n\n\n"),
        (["txn"], "\nget a --rev=99\nput c 1\n\n\n"),
        (["txn"], "\n\n\n"),
        (["get", "--prefix", ""], ""),
    ],
    "compaction": [
        (["put", "a", "1"], ""),
        (["put", "a", "2"], ""),
        (["put", "b", "1"], ""),
        (["del", "b"], ""),
        (["put", "a", "3"], ""),
        (["compact", "4"], ""),
        (["get", "a", "--rev=3"], ""),
        (["get", "a", "--rev=4"], ""),
        (["get", "b", "--rev=4"], ""),
        (["get", "--prefix", ""], ""),
        (["compact", "4"], ""),
        (["compact", "99"], ""),
        (["compact", "6"], ""),
        (["get", "a"], ""),
        (["get", "b", "--rev=5"], ""),
    ],
    "leases": [
        (["lease", "revoke", "1234"], ""),
        (["lease", "timetolive", "1234"], ""),
        (["lease", "list"], ""),
        (["lease", "keep-alive", "--once", "1234"], ""),
        (["lease", "grant", "9000000001"], ""),
    ],
}


def comparable(result: Result) -> tuple[int, Any, str]:
    """What must be the same on both stores: all but numbers of clusters and members, and the client's own log."""
    out: Any = result.out.strip()
    if out.startswith("{"):
        out = [json.loads(line) for line in out.splitlines()]
        for document in out:
            # Some answers have their head within, some spread.
            for head in (document, document.get("header", {})):
                for name in ("cluster_id", "member_id", "raft_term"):
                    head.pop(name, None)
    errors = [line for line in result.err.splitlines() if not line.startswith("{")]
    return result.code, out, "\n".join(errors).strip()


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_answers_are_those_of_etcd(scenario: str, ours: Endpoint, etcd: Endpoint) -> None:
    for arguments, stdin in SCENARIOS[scenario]:
        for form in ("json", "simple"):
            # Writes are done once, so that both forms of a scenario do not double them.
            if form == "simple" and arguments[0] not in ("get", "lease"):
                continue
            command = [*arguments, "-w", form]
            mine, theirs = await asyncio.gather(
                etcdctl(ours, *command, stdin=stdin), etcdctl(etcd, *command, stdin=stdin)
            )
            assert comparable(mine) == comparable(theirs), command


async def read_lines(process: asyncio.subprocess.Process, count: int) -> list[str]:
    """The next lines of a command's output."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return [(await process.stdout.readline()).decode().rstrip("\n") for _ in range(count)]


async def watch_lines(
    endpoint: Endpoint, arguments: Sequence[str], steps: Sequence[list[str]], count: int
) -> list[str]:
    """The first lines that a watch prints while commands are run."""
    process = await start_etcdctl(endpoint, ["watch", *arguments])
    try:
        for step in steps:
            assert (await etcdctl(endpoint, *step)).code == 0
        return await read_lines(process, count)
    finally:
        process.kill()
        await process.wait()


async def test_a_watch_from_a_revision_prints_what_etcds_does(ours: Endpoint, etcd: Endpoint) -> None:
    before = [["put", "k/a", "1"], ["put", "k/b", "2"], ["put", "other", "3"], ["del", "k/a"]]
    during = [["put", "k/c", "4"], ["del", "--prefix", "k/"]]
    printed = []
    for endpoint in (ours, etcd):
        for step in before:
            assert (await etcdctl(endpoint, *step)).code == 0
        printed.append(await watch_lines(endpoint, ["--prefix", "k/", "--rev=2", "--prev-kv"], during, 24))
    assert printed[0] == printed[1]
    assert printed[0][:3] == ["PUT", "k/a", "1"]
    assert printed[0].count("DELETE") == 3


async def test_a_watch_of_compacted_history_is_cancelled(ours: Endpoint, etcd: Endpoint) -> None:
    answers = []
    for endpoint in (ours, etcd):
        for step in (["put", "a", "1"], ["put", "a", "2"], ["put", "a", "3"], ["compact", "4"]):
            assert (await etcdctl(endpoint, *step)).code == 0
        answers.append(comparable(await etcdctl(endpoint, "watch", "a", "--rev=2")))
    assert answers[0] == answers[1]
    assert "compacted" in answers[0][2]


async def test_interactive_watches_report_progress(ours: Endpoint) -> None:
    process = await start_etcdctl(ours, ["watch", "-i"])
    assert process.stdin is not None
    try:
        process.stdin.write(b"watch a\nwatch b\n")
        await process.stdin.drain()
        # Until both watches stand nothing says so but their events.
        process.stdin.write(b"progress\n")
        await process.stdin.drain()
        assert (await etcdctl(ours, "put", "c", "1")).code == 0
        line = ""
        async with asyncio.timeout(30):
            while line != "progress notify: 2":
                process.stdin.write(b"progress\n")
                await process.stdin.drain()
                (line,) = await read_lines(process, 1)
    finally:
        process.kill()
        await process.wait()


async def test_a_lease_lives_by_renewals_and_takes_its_keys_with_it(ours: Endpoint) -> None:
    granted = await etcdctl(ours, "lease", "grant", "2")
    match = re.fullmatch(r"lease ([0-9a-f]+) granted with TTL\(2s\)", granted.out.strip())
    assert match is not None
    lease = match[1]
    assert (await etcdctl(ours, "put", "k", "v", f"--lease={lease}")).code == 0
    keeper = await start_etcdctl(ours, ["lease", "keep-alive", lease])
    try:
        # Longer than it would live without.
        kept = await read_lines(keeper, 6)
        assert kept == [f"lease {lease} keepalived with TTL(2)"] * 6
    finally:
        keeper.kill()
        await keeper.wait()
    assert (
        f"lease {lease} granted with TTL(2s), remaining"
        in (await etcdctl(ours, "lease", "timetolive", lease, "--keys")).out
    )
    watching = await start_etcdctl(ours, ["watch", "k", "--rev=1"])
    try:
        assert await read_lines(watching, 5) == ["PUT", "k", "v", "DELETE", "k"]
    finally:
        watching.kill()
        await watching.wait()
    assert (await etcdctl(ours, "lease", "timetolive", lease)).out.strip() == f"lease {lease} already expired"
    assert (await etcdctl(ours, "lease", "list")).out.strip() == "found 0 leases"


async def test_revoking_a_lease_deletes_its_keys_as_one_revision(ours: Endpoint) -> None:
    granted = await etcdctl(ours, "lease", "grant", "60", "-w", "json")
    lease = f"{json.loads(granted.out)['ID']:016x}"
    for name in ("a", "b"):
        await etcdctl(ours, "put", name, "1", f"--lease={lease}")
    keys = (await etcdctl(ours, "lease", "timetolive", lease, "--keys", "-w", "json")).out
    assert len(json.loads(keys)["keys"]) == 2
    assert (await etcdctl(ours, "lease", "revoke", lease)).out.strip() == f"lease {lease} revoked"
    answer = json.loads((await etcdctl(ours, "get", "--prefix", "", "-w", "json")).out)
    assert answer["header"]["revision"] == 4
    assert "kvs" not in answer


async def test_endpoint_and_member_commands(ours: Endpoint) -> None:
    await etcdctl(ours, "put", "a", "1")
    assert "is healthy" in (await etcdctl(ours, "endpoint", "health")).err
    (status,) = json.loads((await etcdctl(ours, "endpoint", "status", "-w", "json")).out)
    assert status["Status"]["leader"] == status["Status"]["header"]["member_id"]
    assert status["Status"]["header"]["revision"] == 2
    (hashed,) = json.loads((await etcdctl(ours, "endpoint", "hashkv", "-w", "json")).out)
    await etcdctl(ours, "put", "a", "2")
    (later,) = json.loads((await etcdctl(ours, "endpoint", "hashkv", "-w", "json")).out)
    (again,) = json.loads((await etcdctl(ours, "endpoint", "hashkv", "--rev=2", "-w", "json")).out)
    assert hashed["HashKV"]["hash"] == again["HashKV"]["hash"] != later["HashKV"]["hash"]
    members = json.loads((await etcdctl(ours, "member", "list", "-w", "json")).out)["members"]
    assert [(m["name"], m["clientURLs"]) for m in members] == [("s1", [f"https://{ours.address}"])]
    assert (await etcdctl(ours, "alarm", "list")).out.strip() == ""


async def test_a_snapshot_is_saved_whole(ours: Endpoint, tmp_path: Path) -> None:
    for n in range(20):
        await etcdctl(ours, "put", f"k{n}", "v" * n)
    file = tmp_path / "saved"
    result = await etcdctl(ours, "snapshot", "save", str(file))
    assert result.code == 0, result.err
    # etcdctl itself has checked that a checksum is there; it must be right as well.
    import hashlib

    data = file.read_bytes()
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    assert b"k19" in data
