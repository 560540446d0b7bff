"""Who leads: asked of the daemons themselves, with the administrator's certificates."""

from __future__ import annotations

import asyncio

from rich.console import Console

from kybern.cli import asking
from kybern.cli.status import shown
from kybern.config.models import Tls
from lab.errors import LabError
from lab.state import Lab

LEADER = "leader:"


def leaders(lab: Lab) -> dict[str, str]:
    """The leading hosts by daemon, of those that have one."""

    async def ask() -> dict[str, str]:
        async with shown("asking who leads", Console(stderr=True)):
            return await _leaders(lab)

    return asyncio.run(ask())


def find_leader(lab: Lab, daemon: str) -> str:
    """The host whose `store` or `master` leads now.

    Raises:
        LabError: when no such thing has a leader, or nobody says who it is.
    """
    if daemon not in ("store", "master"):
        raise LabError(f"there is no leader of {daemon}", f"there are {LEADER}store and {LEADER}master")
    found = leaders(lab).get(daemon)
    if found is None:
        raise LabError(f"the {daemon} has no leader now", "`kybern-lab status` shows what runs")
    return found


async def _leaders(lab: Lab) -> dict[str, str]:
    files = lab.admin_files()
    store_tls = Tls(files["store-cert"], files["store-key"], files["store-ca"])
    api_tls = Tls(files["cert"], files["key"], files["ca"])
    masters = lab.file.masters
    statuses, holder = await asyncio.gather(
        asyncio.gather(*(asking.store_status(f"{lab.subnet.host(m)}:2379", store_tls) for m in masters)),
        asking.lease_holder([f"{lab.subnet.host(m)}:6444" for m in masters], api_tls),
    )
    found = {
        "store": asking.store_leader(dict(zip(masters, statuses, strict=True))),
        "master": asking.holder_name(holder, masters),
    }
    return {daemon: host for daemon, host in found.items() if host is not None}
