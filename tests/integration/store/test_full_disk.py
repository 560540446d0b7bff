"""A member whose disk is full when it starts for the first time. Needs root: the disk is a tmpfs."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kybern.config.loading import dump
from tests.integration.store.daemons import start
from tests.integration.store.serving import Certificates, Endpoint, etcdctl, store_config

EXIT_FAILURE = 1


@pytest.fixture
def disk(certificates: Certificates) -> Iterator[Path]:
    """The data directory, with a file system of its own."""
    path = certificates.folder / "data"
    path.mkdir(mode=0o700)
    mount("-t", "tmpfs", "-o", "size=64m,nr_inodes=1000,mode=0700", "test", str(path))
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def leave(path: Path, what: str, spare: int) -> None:
    """Let there be room for so many pages or files more."""
    used = os.statvfs(path)
    # 0 would be no limit at all, and the directory itself is a page.
    pages = max(used.f_blocks - used.f_bfree + spare, 1)
    limit = f"size={pages * used.f_frsize}" if what == "pages" else f"nr_inodes={used.f_files - used.f_ffree + spare}"
    mount("-o", f"remount,{limit}", str(path))


@pytest.mark.parametrize("what", ["pages", "files"])
async def test_a_first_start_is_tried_again_until_there_is_room(
    certificates: Certificates, disk: Path, tmp_path: Path, what: str
) -> None:
    """Each start has a little more room than the one before, so that each step is the first that finds none."""
    config = store_config(certificates)
    file, ready, log = tmp_path / "store.yaml", tmp_path / "ready", tmp_path / "log"
    file.write_text(dump(config))
    refused = 0
    while True:
        leave(disk, what, refused)
        log.unlink(missing_ok=True)
        process = await start(file, ready, log)
        ended = asyncio.create_task(process.wait())
        # It takes part from there on, and waits for room by itself.
        while not ended.done() and "member s1 of" not in log.read_text():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
        if not ended.done():
            break
        said = log.read_text()
        last = said.splitlines()[-1]
        assert (await ended, "Traceback" in said) == (EXIT_FAILURE, False), said
        assert last.startswith(f"kybern-store: cannot use the data directory {disk}: No space left on device"), said
        assert "make room there: nothing is lost" in last
        refused += 1
    print(f"{refused} starts found too little room")
    assert refused > 1
    try:
        mount("-o", "remount,size=64m,nr_inodes=1000", str(disk))
        done = await etcdctl(Endpoint(config.client_address, certificates.master()), "put", "there is", "room")
        assert (done.code, done.out) == (0, "OK\n"), done.err
    finally:
        process.terminate()
    assert await ended == 0, log.read_text()
