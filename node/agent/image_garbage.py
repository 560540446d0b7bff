"""Removes images that nothing uses when the disk runs full."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from kybern.clock import Clock
from node.runtime.interface import Image, Runtime, RuntimeFailure

log = logging.getLogger(__name__)

INTERVAL = 300.0
# Above the first share of the disk images are removed until the second is reached.
HIGH = 0.85
LOW = 0.80
# An image that has just come is about to be used.
LEAST_AGE = timedelta(minutes=2)

Usage = Callable[[], tuple[int, int]]


def choose(
    images: Sequence[Image], used: Collection[str], seen: dict[str, datetime], now: datetime, to_free: int
) -> list[Image]:
    """The images to remove: those that were used longest ago first, until enough is freed. Pure."""
    candidates = [i for i in images if i.id not in used and now - seen.get(i.id, now) >= LEAST_AGE]
    chosen = []
    for image in sorted(candidates, key=lambda i: (seen[i.id], i.id)):
        if to_free <= 0:
            break
        chosen.append(image)
        to_free -= image.size_bytes
    return chosen


def disk_usage(path: Path) -> tuple[int, int]:
    """Used and total bytes of the file system of a path."""
    usage = shutil.disk_usage(path)
    return usage.total - usage.free, usage.total


class ImageGarbage:
    """`run` looks every five minutes."""

    def __init__(self, runtime: Runtime, clock: Clock, usage: Usage) -> None:
        self._runtime = runtime
        self._clock = clock
        self._usage = usage
        # When an image was last seen in use, or first seen at all.
        self._seen: dict[str, datetime] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.collect()
            except RuntimeFailure as failure:
                log.info("images are not cleaned up now: %s", failure)
            except OSError as error:
                log.warning("the disk's usage cannot be read: %s", error)
            await asyncio.sleep(INTERVAL)

    async def collect(self) -> None:
        """Look once."""
        now = self._clock.now()
        images = await self._runtime.images()
        containers = await self._runtime.containers()
        used = {c.image_id for c in containers} | {i.id for i in images for c in containers if c.image in i.tags}
        self._seen = {i.id: now if i.id in used else self._seen.get(i.id, now) for i in images}
        taken, total = self._usage()
        if not total or taken < total * HIGH:
            return
        for image in choose(images, used, self._seen, now, int(taken - total * LOW)):
            log.info("removing the image %s: the disk is %d %% full", image.tags or image.id, 100 * taken // total)
            try:
                await self._runtime.remove_image(image.id)
            except RuntimeFailure as failure:
                if failure.unavailable:
                    raise
                log.info("the image %s stays: %s", image.tags or image.id, failure)
