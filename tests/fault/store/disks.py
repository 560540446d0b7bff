"""Faults of disks: writes that were interrupted, bits that flip, no room, writes that do not come back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

from store.raft import segments
from tests.fault.store.cluster import NAMES, Cluster
from tests.fault.store.network import run
from tests.fault.store.waiting import SECONDS, Unmet, until
from tests.volumes import frozen

EX_CONFIG = 78
# The member whose data is on a tmpfs.
TMPFS_MEMBER = "s3"
# The member whose data is on a volume that can be frozen.
VOLUME_MEMBER = "s1"
_FULL_BYTES = 256 << 20


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
        await until(lambda name=name: cluster.output(name).count("cutting ") > before[name], f"{name} cuts the tail")  # type: ignore[misc]


def tear(data: Path, rng: random.Random) -> bool:
    """Put the beginning of a batch behind the last one of a member; False when there is no segment yet."""
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
    with paths[-1].open("r+b") as file:
        file.seek(found.good_bytes)
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
        code = await asyncio.wait_for(cluster.processes[name].wait(), SECONDS)
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


async def disk_hang(cluster: Cluster, rng: random.Random) -> None:
    """One member's disk, most often the leader's, does not come back from a write, and then it does.

    Raises:
        Unmet: when a leader goes on with a disk that hangs for longer than an election takes, or nobody follows it.
    """
    leads = rng.random() < 0.7 and await cluster.lead(VOLUME_MEMBER)
    others = [name for name in NAMES if name != VOLUME_MEMBER]
    async with frozen(cluster.data(VOLUME_MEMBER)):
        # At times it is back before anybody gives it up.
        await asyncio.sleep(rng.choice((0.3, 1.5, 3.0)))
        if leads and rng.random() < 0.8:
            try:
                await cluster.leader(others)
            except TimeoutError:
                raise Unmet(f"nobody leads instead of {VOLUME_MEMBER}, whose disk hangs") from None
            cluster.tallies.leaders_with_hanging_disks += 1
        if rng.random() < 0.3:
            # Ends when the disk is back: what it was writing is complete by then, or was never begun.
            cluster.signal(VOLUME_MEMBER, signal.SIGKILL)
            cluster.tallies.kills += 1


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


async def mount_tmpfs(path: Path) -> None:
    """Give a member's data directory, which is there, a file system of its own."""
    await _mount("-t", "tmpfs", "-o", f"size={_FULL_BYTES},mode=0700", "fault", str(path))


async def unmount(path: Path) -> None:
    """Undo `mount_tmpfs`."""
    await run("umount", str(path))


async def _mount(*arguments: str) -> None:
    await run("mount", *arguments)
