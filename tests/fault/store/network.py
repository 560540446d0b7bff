"""The members' network: a namespace for each, links between them, and what is done to the packets on the way.

Every member lives in a network namespace of its own whose only way out is a link to the harness's namespace, which
routes. So whatever address a member dials, by whatever way it learnt of it, its packets pass here, where rules of
routing throw them away or lead them through `Detour`. Clients run in the harness's namespace and are not touched.

The harness's namespaces (of networks and mounts) are its own (`own_namespaces`), the members' have names in there
alone: all of it vanishes with the last process in it, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.fault.store.detour import DEVICE, Detour

# Set for the process inside the namespaces.
INSIDE = "KYBERN_FAULT_INSIDE"
_TABLE = "100"
_SYSTEM = Path("/proc/sys/net/ipv4")
TUN = Path("/dev/net/tun")


def own_namespaces() -> list[str] | None:
    """The command that runs another in mount and network namespaces of its own; None when that is not allowed here."""
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("ip") is None or shutil.which("nsenter") is None:
        return None
    # Without root, in a namespace of users of its own.
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = [unshare, *user, "--mount", "--net", "--propagation", "private"]
    return command if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0 else None


class Network:
    """Links and rules of members by name. Needs to run inside `own_namespaces`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.addresses = {name: f"10.9.{number}.2" for number, name in enumerate(names, 1)}
        self._gateways = {name: f"10.9.{number}.1" for number, name in enumerate(names, 1)}
        # Pairs (sender, receiver), by what happens to packets between them.
        self._rules: dict[tuple[str, str], str] = {}
        self._detour: Detour | None = None

    async def start(self) -> None:
        """Make namespaces and links.

        Raises:
            OSError: when that is not possible here.
        """
        # `ip` keeps names of namespaces in there, which must be nobody else's.
        await run("mount", "-t", "tmpfs", "none", "/run")
        for path in ("conf/all/rp_filter", "conf/default/rp_filter"):
            (_SYSTEM / path).write_text("0")
        (_SYSTEM / "ip_forward").write_text("1")
        await run("ip", "link", "set", "lo", "up")
        for name, address in self.addresses.items():
            gateway = self._gateways[name]
            await run("ip", "netns", "add", name)
            await run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            await run("ip", "addr", "add", f"{gateway}/30", "dev", name)
            await run("ip", "link", "set", "dev", name, "up")
            for command in (
                ("link", "set", "lo", "up"),
                ("addr", "add", f"{address}/30", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("route", "add", "default", "via", gateway),
            ):
                await run("ip", "-n", name, *command)
        if TUN.exists():  # noqa: ASYNC240 - no disk is asked
            self._detour = Detour()
            await run("ip", "link", "set", DEVICE, "up")
            await run("ip", "route", "add", "default", "dev", DEVICE, "table", _TABLE)

    async def stop(self) -> None:
        """End what runs for it; the namespaces vanish by themselves."""
        if self._detour is not None:
            self._detour.close()

    def within(self, name: str) -> list[str]:
        """The beginning of a command that is to run as a member."""
        return ["nsenter", f"--net=/run/netns/{name}", "--"]

    async def hold(self, sender: str, receiver: str) -> None:
        """Lose everything from one member to another, acknowledgements of the other direction too."""
        await self._set(sender, receiver, "blackhole")

    async def cut(self, one: str, other: str) -> None:
        """Lose everything between two members."""
        await self.hold(one, other)
        await self.hold(other, one)

    async def delay(self, seconds: float) -> None:
        """Delay every packet between members."""
        await self._through_detour(seconds, 0.0, 0)

    async def lose(self, share: float, seed: int) -> None:
        """Lose a share of all packets between members."""
        await self._through_detour(0.0, share, seed)

    async def heal(self) -> None:
        """Let everything through at once."""
        for sender, receiver in tuple(self._rules):
            await self._clear(sender, receiver)
        if self._detour is not None:
            self._detour.set()

    async def _through_detour(self, delay: float, loss: float, seed: int) -> None:
        assert self._detour is not None  # faults that need it are left out without it
        self._detour.set(delay, loss, seed)
        for sender in self.addresses:
            for receiver in self.addresses:
                if sender != receiver:
                    await self._set(sender, receiver, f"lookup {_TABLE}")

    async def _set(self, sender: str, receiver: str, action: str) -> None:
        await self._clear(sender, receiver)
        self._rules[sender, receiver] = action
        await run("ip", "rule", "add", *self._between(sender, receiver), *action.split())

    async def _clear(self, sender: str, receiver: str) -> None:
        action = self._rules.pop((sender, receiver), None)
        if action is not None:
            await run("ip", "rule", "del", *self._between(sender, receiver), *action.split())

    def _between(self, sender: str, receiver: str) -> list[str]:
        # By the link it came in on: what has been through the detour comes from there.
        return ["from", self.addresses[sender], "to", self.addresses[receiver], "iif", sender]


async def run(*command: str) -> None:
    """Run a command to its end.

    Raises:
        OSError: with what it said, when it fails.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(command)}: {said.decode().strip()}")
