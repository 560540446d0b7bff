"""Runs the scheduler, again after a failure."""

from __future__ import annotations

import asyncio
import logging

from kybern.backoff import Backoff
from kybern.client.controller import ControllerContext
from master.scheduler.scheduler import Scheduler

log = logging.getLogger(__name__)


async def run_scheduler(context: ControllerContext) -> None:
    """Schedule until cancelled; the caller runs `context.informers`."""
    backoff = Backoff(base=1.0, cap=60.0, rng=context.rng)
    while True:
        scheduler = Scheduler(context)
        began = context.clock.monotonic()
        try:
            await scheduler.run()
        except Exception:
            if context.clock.monotonic() - began > backoff.cap:
                backoff.reset()
            wait = backoff.next()
            log.exception("the scheduler failed; starting it again in %.1f s", wait)
            await asyncio.sleep(wait)
        finally:
            scheduler.close()
