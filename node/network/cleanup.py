"""Takes away everything that the node's network made: rules, links, routes. Idempotent.

For uninstalling, and for hosts that leave a cluster; an agent that merely stops leaves its network in force. Kernel
settings stay as they are: nobody can know by now who else relies on them.

    python -m node.network.cleanup
"""

from __future__ import annotations

import asyncio
import sys

from node.network.links import BRIDGE, Links
from node.network.netlink import NetlinkError
from node.network.routes import RouteTable
from node.proxy.interface import RoutingError
from node.proxy.iptables import Changes, Iptables, IptablesCommands, parse_saved, restore_text

_TABLES = ("nat", "filter")


async def clean_up(commands: Iptables | None = None) -> list[str]:
    """Remove what is ours in this process's network namespace; returns what could not be removed, and why."""
    problems = []
    try:
        await _remove_rules(commands or IptablesCommands())
    except RoutingError as error:
        problems.append(str(error))
    try:
        await asyncio.to_thread(_remove_links)
    except NetlinkError as error:
        problems.append(error.strerror or str(error))
    return problems


async def _remove_rules(commands: Iptables) -> None:
    saved = parse_saved(await commands.save(), _TABLES)
    changes = Changes(removed=list(saved.chains), unhooked=saved.hooks)
    if len(changes):
        await commands.restore(restore_text(changes))


def _remove_links() -> None:
    routes, links = RouteTable(), Links()
    try:
        routes.clear()
        for port in links.ports():
            links.remove(port.name)
        links.remove(BRIDGE)
    finally:
        routes.close()
        links.close()


def main() -> int:
    """The command; exits with 1 when something is left."""
    problems = asyncio.run(clean_up())
    for problem in problems:
        print(f"cannot clean up: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
