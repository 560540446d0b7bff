"""The faults. Each is inflicted on a cluster under load and lasts for a while; `Cluster.heal` undoes what it left."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from store.raft import segments
from tests.fault.store.cluster import NAMES, Cluster

EX_CONFIG = 78
# What a process exits with that a fail point ended.
FAIL_POINT_EXIT = 99
_FULL_BYTES = 256 << 20
_REFUSAL_SECONDS = 30.0


class Unmet(Exception):  # noqa: N818
    """A member did not do what it must after a fault."""


Fault = Callable[[Cluster, random.Random], Awaitable[None]]


async def kill_one(cluster: Cluster, rng: random.Random) -> None:
    """SIGKILL any member; the others go on."""
    await cluster.kill([rng.choice(NAMES)])
    await asyncio.sleep(rng.uniform(0, 0.5))


async def kill_leader(cluster: Cluster, rng: random.Random) -> None:
    """SIGKILL the leader, and its successor too once in a while."""
    for _ in range(rng.choice((1, 1, 2))):
        name = await cluster.leader()
        await cluster.kill([name])
        await asyncio.sleep(rng.uniform(0, 0.3))
        await cluster.up(name)


async def kill_all(cluster: Cluster, rng: random.Random) -> None:
    """SIGKILL all members at once."""
    await cluster.kill(NAMES)


async def stop_one(cluster: Cluster, rng: random.Random) -> None:
    """SIGSTOP any member; what was waiting for it in sockets arrives late."""
    await _stopped(cluster, rng.choice(NAMES), rng.uniform(0.3, 2.0))


async def stop_leader(cluster: Cluster, rng: random.Random) -> None:
    """SIGSTOP the leader for longer than an election takes: it comes back and still thinks that it leads."""
    await _stopped(cluster, await cluster.leader(), rng.uniform(1.0, 3.0))


async def _stopped(cluster: Cluster, name: str, seconds: float) -> None:
    cluster.signal(name, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    cluster.signal(name, signal.SIGCONT)


async def isolate_leader(cluster: Cluster, rng: random.Random) -> None:
    """Cut the leader off from its peers, not from its clients."""
    leader = await cluster.leader()
    for other in NAMES:
        if other != leader:
            cluster.network.cut(leader, other)
    await asyncio.sleep(rng.uniform(1.0, 2.5))


async def bridge(cluster: Cluster, rng: random.Random) -> None:
    """Cut two members off from each other; both reach the third."""
    one, other = rng.sample(NAMES, 2)
    cluster.network.cut(one, other)
    await asyncio.sleep(rng.uniform(1.0, 2.5))


async def one_way(cluster: Cluster, rng: random.Random) -> None:
    """Nothing gets through one way: to or from the leader, from or to one member or both."""
    leader = await cluster.leader()
    others = [name for name in NAMES if name != leader]
    outward = rng.random() < 0.5
    for other in rng.sample(others, rng.choice((1, 2))):
        cluster.network.hold(*((leader, other) if outward else (other, leader)))
    await asyncio.sleep(rng.uniform(1.0, 2.5))


async def delay(cluster: Cluster, rng: random.Random) -> None:
    """Every message takes longer, nearly as long as an election may."""
    cluster.network.delay(rng.uniform(0.02, 0.2))
    await asyncio.sleep(rng.uniform(0.5, 1.5))


async def torn_tail(cluster: Cluster, rng: random.Random) -> None:
    """Kill members in the middle of a write: what a write leaves that never ended stands after what was durable.

    The bytes are those of the batch that would have come next, cut anywhere. Nothing that is there is cut: a member
    that was killed has handed all of it to the kernel, and may have acknowledged it.
    """
    names = rng.sample(NAMES, rng.choice((1, 3)))
    await cluster.kill(names)
    torn = [name for name in names if tear(cluster.data(name), rng)]
    before = {name: cluster.output(name).count("cutting ") for name in torn}
    await asyncio.gather(*map(cluster.up, names))
    for name in torn:
        await _until(lambda name=name: cluster.output(name).count("cutting ") > before[name], f"{name} cuts the tail")  # type: ignore[misc]


def tear(data: Path, rng: random.Random) -> bool:
    """Add the beginning of a batch to a member's last segment; False when there is no segment yet."""
    paths = sorted((data / "log").glob("*.log"))
    if not paths:
        return False
    found = _scan(paths[-1], paths[-1].read_bytes())
    if found is None or found.torn_bytes:
        return False
    last = found.records[-1] if found.records else None
    before = (last.index, last.term) if last else (found.header.previous_index, found.header.previous_term)
    index, term = before[0] + 1, before[1]
    batch = segments.encode_batch(found.next_sequence, [segments.encode_record(index, term, rng.randbytes(300))])
    with paths[-1].open("ab") as file:
        file.write(batch[: rng.randrange(1, len(batch))])
    return True


def _scan(path: Path, content: bytes) -> segments.Scanned | None:
    header = segments.decode_file_header(path, content)
    return None if header is None else segments.scan(path, content, header)


async def flipped_bit(cluster: Cluster, rng: random.Random) -> None:
    """Change a bit of a dead member's log: it must refuse to start and say why; the others go on. Then mend the file.

    Raises:
        Unmet: when it starts, or does not say what is wrong.
    """
    name = rng.choice(NAMES)
    await cluster.kill([name])
    path = rng.choice(sorted((cluster.data(name) / "log").glob("*.log")))
    content = bytearray(path.read_bytes())
    found = _scan(path, bytes(content))
    # Behind that a write may have been interrupted: it is cut, whatever it holds.
    offset = rng.randrange(found.good_bytes if found is not None else len(content))
    bit = 1 << rng.randrange(8)
    content[offset] ^= bit
    path.write_bytes(content)
    said = len(cluster.output(name))
    await cluster.up(name)
    try:
        code = await asyncio.wait_for(cluster.processes[name].wait(), _REFUSAL_SECONDS)
    except TimeoutError:
        raise Unmet(f"{name} runs although bit {bit} of byte {offset} of {path.name} was flipped") from None
    text = cluster.output(name)[said:]
    if code != EX_CONFIG or "is corrupt at offset" not in text or path.name not in text:
        raise Unmet(f"{name} ended with {code} after bit {bit} of byte {offset} of {path.name} was flipped: {text}")
    content[offset] ^= bit
    path.write_bytes(content)


async def disk_full(cluster: Cluster, rng: random.Random) -> None:
    """No more room for one member's data (a tmpfs that shrinks to what is used), then room again."""
    path = cluster.data(TMPFS_MEMBER)
    await _shrink(path)
    await asyncio.sleep(rng.uniform(0.5, 2.0))
    if rng.random() < 0.5:
        await cluster.kill([TMPFS_MEMBER])
    await _mount("-o", f"remount,size={_FULL_BYTES}", str(path))


TMPFS_MEMBER = "s3"


async def _shrink(path: Path) -> None:
    """Make a tmpfs about as large as what is in it; the kernel refuses a size that was outgrown meanwhile."""
    for spare in range(0, 4096, 16):  # blocks
        used = os.statvfs(path)
        blocks = used.f_blocks - used.f_bfree + spare
        try:
            await _mount("-o", f"remount,size={blocks * used.f_frsize}", str(path))
        except OSError:
            continue
        return
    raise OSError(f"{path} grows faster than it can be shrunk")


async def fail_point(cluster: Cluster, rng: random.Random) -> None:
    """Let members die at chosen steps of their work: restart them so that they do, and wait for it for a while."""
    names = rng.sample(NAMES, rng.choice((1, 2, 3)))
    await cluster.kill(names)
    for name in names:
        where = f"{rng.choice(fail_points())}=exit@{rng.choice((1, 2, 5, 20, 100))}"
        await cluster.up(name, {"KYBERN_FAILPOINTS": where})
    ends = [asyncio.ensure_future(cluster.processes[name].wait()) for name in names]
    await asyncio.wait(ends, timeout=rng.uniform(1.5, 3.0))
    for end in ends:
        end.cancel()
    cluster.fail_point_exits += sum(cluster.processes[name].returncode == FAIL_POINT_EXIT for name in names)
    # So that nobody dies later of what this fault left.
    await cluster.kill(names)


def fail_points() -> list[str]:
    """The store's fail points; empty for a store that has none."""
    if importlib.util.find_spec("store.raft.failpoints") is None:
        return []
    return list(importlib.import_module("store.raft.failpoints").NAMES)


FAULTS: dict[str, Fault] = {
    "kill-one": kill_one,
    "kill-leader": kill_leader,
    "kill-all": kill_all,
    "stop-one": stop_one,
    "stop-leader": stop_leader,
    "isolate-leader": isolate_leader,
    "bridge": bridge,
    "one-way": one_way,
    "delay": delay,
    "torn-tail": torn_tail,
    "flipped-bit": flipped_bit,
    "disk-full": disk_full,
    "fail-point": fail_point,
}


def available(*, tmpfs: bool) -> dict[str, str]:
    """Why a fault cannot be inflicted here, by its name."""
    missing = {}
    if not tmpfs:
        missing["disk-full"] = "a tmpfs for a member's data needs root and a mount namespace"
    if not fail_points():
        missing["fail-point"] = "this store has no fail points"
    return missing


async def mount_tmpfs(path: Path) -> None:
    """Give a member's data directory, which is there, a file system of its own."""
    await _mount("-t", "tmpfs", "-o", f"size={_FULL_BYTES},mode=0700", "fault", str(path))


def own_mounts() -> list[str] | None:
    """The command that runs another in a mount namespace of its own; None when that needs rights that are missing."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None or shutil.which("mount") is None:
        return None
    command = [unshare, "--mount", "--propagation", "private"]
    return command if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0 else None


async def unmount(path: Path) -> None:
    """Undo `mount_tmpfs`."""
    await _run("umount", str(path))


async def _mount(*arguments: str) -> None:
    await _run("mount", *arguments)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(command)}: {said.decode().strip()}")


async def _until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(_REFUSAL_SECONDS):
            while not condition():  # noqa: ASYNC110 - another process makes it true
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Unmet(f"it did not happen that {what}") from None
