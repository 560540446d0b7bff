"""Several members in one process on one log, and relays in front of them that can be stopped and cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from kybern.clock import SystemClock
from kybern.config.models import StoreConfig
from store.raft.interface import (
    Applied,
    Member,
    MembershipError,
    MembershipReason,
    NoLeader,
    RaftStatus,
    RaftUnavailable,
    StateMachine,
)
from store.server.member import StoreMember
from tests.integration.store.serving import HOST, Certificates
from tests.ports import free_port


class SharedLog:
    """The log of a group that never disagrees. Members join with `member`."""

    def __init__(self) -> None:
        self.rafts: list[SharedRaft] = []
        self.index = 0
        # Proposals are committed, but their proposers are told that they may not have been.
        self.lose_answers = False
        # Indexes as they are committed.
        self.commits: asyncio.Queue[int] = asyncio.Queue()

    def commit(self, command: bytes) -> list[object]:
        """Apply a command on all members; returns each one's outcome."""
        self.index += 1
        outcomes = [raft.machine.apply(command, Applied(self.index, 1, self.index)) for raft in self.rafts]
        for raft in self.rafts:
            raft.machine.caught_up()
        self.commits.put_nowait(self.index)
        return outcomes


class SharedRaft:
    """One member of a shared log. `cut` members know no leader."""

    def __init__(self, log: SharedLog, member: Member) -> None:
        self._log = log
        self._member = member
        self.cut = False
        self.machine: StateMachine

    async def start(self, machine: StateMachine) -> None:
        self.machine = machine
        self._log.rafts.append(self)

    async def stop(self) -> None:
        self.cut = True

    async def propose(self, command: bytes) -> object:
        await asyncio.sleep(0)
        if self.cut:
            raise NoLeader("cut off")
        outcome = self._log.commit(command)[self._log.rafts.index(self)]
        if self._log.lose_answers:
            raise RaftUnavailable("leadership was lost")
        return outcome

    async def read_barrier(self) -> None:
        await asyncio.sleep(0)
        if self.cut:
            raise NoLeader("cut off")

    @property
    def is_leader(self) -> bool:
        return self._log.rafts[0] is self

    @property
    def member_id(self) -> int:
        return self._member.id

    @property
    def term(self) -> int:
        return 1

    def status(self) -> RaftStatus:
        return RaftStatus(
            member=self._member,
            leader=None if self.cut else self._member,
            term=1,
            commit_index=self._log.index,
            applied_index=self._log.index,
            log_bytes=0,
            members=(self._member,),
        )

    async def add_member(self, name: str, peer_address: str, client_address: str, *, learner: bool) -> Member:
        raise MembershipError(MembershipReason.UNHEALTHY)

    async def promote_member(self, member_id: int) -> Member:
        raise MembershipError(MembershipReason.NOT_LEARNER)

    async def remove_member(self, member_id: int) -> None:
        raise MembershipError(MembershipReason.UNHEALTHY)

    async def update_member(self, member_id: int, peer_address: str) -> Member:
        raise MembershipError(MembershipReason.UNHEALTHY)

    async def transfer_leadership(self, member_id: int) -> None:
        raise MembershipError(MembershipReason.BAD_TRANSFEREE)

    def on_leadership(self, handler: Callable[[bool], None]) -> None:
        pass

    def metrics(self) -> Mapping[str, float]:
        return {}


class Relay:
    """A TCP relay. `pause`: bytes are taken and go nowhere, as with a stopped process; `cut`: nobody listens."""

    def __init__(self, target: str) -> None:
        self.address = f"{HOST}:{free_port()}"
        self._target = target
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, int(self.address.rpartition(":")[2]))

    def pause(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in tuple(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            pair = (writer, far_writer)
            self._writers.update(pair)
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
            self._writers.difference_update(pair)
        writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


class Group:
    """Three members on a shared log, each behind a relay."""

    def __init__(self, log: SharedLog, members: list[StoreMember], relays: list[Relay]) -> None:
        self.log = log
        self.members = members
        self.relays = relays
        self.endpoints = [relay.address for relay in relays]


@contextlib.asynccontextmanager
async def group_of_three(certificates: Certificates) -> AsyncIterator[Group]:
    """Run a group."""
    log = SharedLog()
    members: list[StoreMember] = []
    relays: list[Relay] = []
    names = ("s1", "s2", "s3")
    addresses = {name: f"{HOST}:{free_port()}" for name in names}
    for number, name in enumerate(names, 1):
        config = StoreConfig(
            name=name,
            data_dir=certificates.folder / name,
            client_address=addresses[name],
            peer_address=f"{HOST}:1",
            members={},
            clients=addresses,
            tls=certificates.member(name),
        )
        raft = SharedRaft(log, Member(number, name, config.peer_address, config.client_address))
        member = StoreMember.create(config, raft, SystemClock())
        await member.start()
        members.append(member)
        relays.append(Relay(addresses[name]))
        await relays[-1].listen()
    try:
        yield Group(log, members, relays)
    finally:
        for relay in relays:
            relay.resume()
            await relay.cut()
        await asyncio.gather(*(member.stop() for member in members))
