"""A run: rounds of load and faults on one cluster, each checked when it has healed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kybern.client.etcd import EtcdClient
from kybern.client.store import Change, KeyValue
from kybern.pb.etcd import lease_pb2
from tests.fault.store import kv_model
from tests.fault.store.cluster import NAMES, Cluster
from tests.fault.store.compaction import kill_all_in_compact
from tests.fault.store.history import History, Operation
from tests.fault.store.lease_check import Lease, check_keys, check_leftovers, check_lives, overdue
from tests.fault.store.lease_load import MAX_TTL, Tenant
from tests.fault.store.load import CLAIMS, GROUP, REGISTERS, Store, UnaryStore, Watcher, Worker, group_of
from tests.fault.store.log_check import Log, check_operations, check_watch, lost_keys
from tests.fault.store.nemesis import FAULTS
from tests.fault.store.points import fired, kill_all_in_snapshot
from tests.fault.store.waiting import Unmet

_ALL = (b"\0", b"\0")
# Above every key that is used, for watches that are compared by range.
_LAST = b"\xff"
# What is watched, and for how many seconds at most before the watch is begun anew (0: for ever).
_WATCHES = ((b"\0", _LAST, 0.0), (b"\0", _LAST, 0.7), (b"g/", b"g0", 0.4), (b"r/3", b"r/4", 0.0))
_SETTLE_SECONDS = 120.0
# How much later than its time a lease may end when nothing is wrong: half a second between looks, a new leader's full
# time again (the TTL, 3 s at most), a call that was on its way (5 s). On a busy machine leaders change by themselves.
_LEASE_PATIENCE = 30.0


@dataclass
class Summary:
    """What a run found; printed as JSON."""

    seed: int
    rounds: int = 0
    kills: int = 0
    # Times that all members were killed at once, and how many of these while a Compact was not answered, and while
    # each was at a step of a snapshot or of trimming.
    killed_all: int = 0
    killed_all_in_compact: int = 0
    killed_all_in_snapshot: int = 0
    # Members, by the step at which they were killed then.
    snapshot_steps: dict[str, int] = field(default_factory=dict)
    fail_point_exits: int = 0
    fail_points_hit: dict[str, int] = field(default_factory=dict)
    fail_points_missed: list[str] = field(default_factory=list)
    leaders_isolated: int = 0
    # That had to let another lead, and did.
    leaders_with_hanging_disks: int = 0
    isolated_reads: int = 0
    isolated_reads_answered: int = 0
    members_replaced: int = 0
    # That were started without the data that they had lost, and ended.
    blank_members_refused: int = 0
    clock_jumps: int = 0
    leases: int = 0
    lease_renewals: int = 0
    operations: int = 0
    acknowledged_writes: int = 0
    unknown_outcomes: int = 0
    watched_changes: int = 0
    lost: int = 0
    linearizability_violations: int = 0
    watch_violations: int = 0
    lease_violations: int = 0
    members_differ: int = 0
    other_violations: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    # Why the run ended before its time.
    broken_off: str = ""

    @property
    def violations(self) -> int:
        """All of them."""
        return (
            self.lost
            + self.linearizability_violations
            + self.watch_violations
            + self.lease_violations
            + self.members_differ
            + self.other_violations
            + bool(self.broken_off)
        )


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is to be. `pause`: seconds that a client rests between calls, on average."""

    seed: int
    rounds: int
    faults: Sequence[str]
    seconds: float = 0.0
    pause: float = 0.004
    kill_all_every_round: bool = True


class Run:
    """One run on one cluster."""

    def __init__(self, cluster: Cluster, options: Options, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._options = options
        self._say = say
        self.summary = Summary(options.seed)
        # Up to here everything is checked; this was the state then.
        self._revision = 1
        self._state: dict[bytes, KeyValue] = {}
        self._claims: list[Operation] = []
        self._faults: Counter[str] = Counter()
        self._steps: Counter[str] = Counter()
        self._leases: list[Lease] = []
        addresses = list(cluster.clients.values())
        rotated = [addresses[n:] + addresses[:n] for n in range(len(addresses))]
        self._pipes = [
            EtcdClient(order, cluster.master, timeout=5.0, watch_patience=_SETTLE_SECONDS) for order in rotated
        ]
        self._unary = [UnaryStore(addresses, cluster.master, n) for n in range(3)]
        self._members = {
            name: EtcdClient([cluster.clients[name]], cluster.master, timeout=_SETTLE_SECONDS) for name in NAMES
        }

    async def close(self) -> None:
        """Close the clients."""
        stores: list[Store] = [*self._pipes, *self._unary, *self._members.values()]
        for store in stores:
            await store.close()

    async def run(self) -> None:
        """All rounds, until the time is over, and the last look at everything."""
        began = time.monotonic()
        try:
            await self._settled()
            for number in range(1, self._options.rounds + 1):
                if number > 1 and self._options.seconds and time.monotonic() - began > self._options.seconds:
                    break
                await self._round(number)
            await self._last_look()
        except (Exception, ExceptionGroup) as error:
            # What was found so far is worth telling; a store that cannot be used any more is a finding too.
            self._say(f"VIOLATION (broken off): {traceback.format_exc()}")
            self.summary.broken_off = repr(error)
        self.summary.seconds = round(time.monotonic() - began, 1)
        for tally, count in asdict(self._cluster.tallies).items():
            setattr(self.summary, tally, count)
        hit = fired(self._cluster)
        self.summary.fail_points_hit = {point: count for point, count in hit.items() if count}
        self.summary.fail_points_missed = [point for point, count in hit.items() if not count]
        self.summary.snapshot_steps = dict(sorted(self._steps.items()))
        self.summary.faults = dict(sorted(self._faults.items()))

    # --- a round

    async def _round(self, number: int) -> None:
        began = time.monotonic()
        rng = random.Random(f"{self._options.seed}/{number}")
        history = History()
        fault = self._options.faults[(number - 1) % len(self._options.faults)]
        watchers: list[Watcher] = []
        problems = Problems(self._say, self._cluster.folder, number)
        tenants: list[Tenant] = []
        async with self._load(rng, history, number, watchers, tenants) as until:
            await asyncio.sleep(rng.uniform(0.1, 0.4))
            await self._inflict(fault, rng, problems)
            if self._options.kill_all_every_round:
                await self._cluster.heal()
                await self._progress(history)
                await self._kill_all(rng, problems)
            await self._cluster.heal()
            await self._settled()
            # A little of ordinary life after it.
            await self._progress(history)
            until.set_result(True)
        await self._check(history, watchers, tenants, problems)
        self._account(history, problems)
        self._say(
            f"round {number}: {fault}: {len(history.operations)} operations, revision {self._revision}, "
            f"{self._cluster.tallies.kills} kills, {time.monotonic() - began:.1f} s"
            + (f", {problems.count} VIOLATIONS" if problems.count else "")
        )

    async def _inflict(self, name: str, rng: random.Random, problems: Problems) -> None:
        self._faults[name] += 1
        self.summary.killed_all += name == "kill-all"
        try:
            await FAULTS[name](self._cluster, rng)
        except Unmet as unmet:
            problems.add("unmet", [str(unmet)])

    async def _kill_all(self, rng: random.Random, problems: Problems) -> None:
        """Kill all in a compaction, at times soon after their start, and then all in a snapshot."""
        for again in range(rng.choice((1, 1, 2))):
            if again:
                await self._cluster.heal()
                await asyncio.sleep(rng.uniform(0.3, 2.5))
            self.summary.killed_all += 1
            self.summary.killed_all_in_compact += await kill_all_in_compact(self._cluster, rng)
        self.summary.killed_all += 1
        if await kill_all_in_snapshot(self._cluster, rng, self._steps):
            self.summary.killed_all_in_snapshot += 1
        else:
            self._say("not all members came to their step of a snapshot in time")

    async def _progress(self, history: History, calls: int = 100) -> None:
        """Wait until some more calls were answered."""
        have = len(history.operations)
        async with asyncio.timeout(_SETTLE_SECONDS):
            while len(history.operations) < have + calls:  # noqa: ASYNC110 - the workers fill it
                await asyncio.sleep(0.02)

    async def _settled(self) -> None:
        """Wait until every member answers from a state that has all that was committed."""
        await asyncio.gather(*(client.revision() for client in self._members.values()))

    @contextlib.asynccontextmanager
    async def _load(
        self, rng: random.Random, history: History, number: int, watchers: list[Watcher], tenants: list[Tenant]
    ) -> AsyncIterator[asyncio.Future[bool]]:
        """Workers, tenants and watchers; when the body has said that it is over, the watchers see the end."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        over: asyncio.Future[bool] = loop.create_future()
        end: asyncio.Future[int] = loop.create_future()
        stores: list[Store] = [*self._pipes, *self._pipes, *self._unary, *self._unary]
        workers = [
            Worker(f"{number}.{n}", store, history, random.Random(rng.random()), self._options.pause)
            for n, store in enumerate(stores)
        ]
        for n, (start, stop_key, _) in enumerate(_WATCHES):
            client = self._pipes[n % len(self._pipes)]
            watchers.append(Watcher(f"watch {n}", client, start, stop_key, random.Random(rng.random())))
        tenants += [
            Tenant(f"{number}.t{n}", client, history, random.Random(rng.random()))
            for n, client in enumerate(self._pipes)
        ]
        clients: list[Worker | Tenant] = [*workers, *tenants]
        working = [asyncio.create_task(client.run(stop)) for client in clients]
        watching = [
            asyncio.create_task(watcher.run(self._revision, restart=restart, until=end))
            for watcher, (_, _, restart) in zip(watchers, _WATCHES, strict=True)
        ]
        try:
            yield over
            stop.set()
            await asyncio.gather(*working)
            end.set_result(await self._members[NAMES[0]].revision())
            await self._watched_all(watching, watchers, end.result())
        finally:
            for task in (*working, *watching):
                task.cancel()
            await asyncio.gather(*working, *watching, return_exceptions=True)

    async def _watched_all(
        self, watching: Sequence[asyncio.Task[None]], watchers: Sequence[Watcher], revision: int
    ) -> None:
        """Wait until every watcher was told all up to a revision."""
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                while not all(task.done() for task in watching):
                    for client in self._pipes:
                        await client.request_progress()
                    await asyncio.wait(watching, timeout=0.1)
        except TimeoutError:
            late = [
                f"{watcher.watched[-1].name} is at {watcher.watched[-1].upto}"
                for task, watcher in zip(watching, watchers, strict=True)
                if not task.done()
            ]
            raise Unmet(f"in {_SETTLE_SECONDS:g} s not all watches came to revision {revision}: {late}") from None
        await asyncio.gather(*watching)

    # --- checks

    async def _check(
        self, history: History, watchers: Sequence[Watcher], tenants: Sequence[Tenant], problems: Problems
    ) -> None:
        live = await self._live_leases()
        revision = await self._members[NAMES[0]].revision()
        logs = await asyncio.gather(*(self._changes(name, revision) for name in NAMES))
        hashes = await asyncio.gather(*(self._cluster.hash(name, revision) for name in NAMES))
        problems.add("members differ", [f"checksums {hashes}"] if len(set(hashes)) > 1 else [])
        for name, changes in zip(NAMES, logs, strict=True):
            problems.add("members differ", [f"{name}'s changes are not {NAMES[0]}'s"] if changes != logs[0] else [])
        log = Log(self._revision, self._state, logs[0])
        if log.revision != revision:
            problems.add("watch", [f"the changes end at {log.revision}, the store is at {revision}"])
        verdict = check_operations(log, history.operations)
        problems.add("lost", verdict.lost)
        problems.add("not linearizable", verdict.wrong)
        problems.add("not linearizable", kv_model.check(history.operations, group_of, self._initial()))
        for watcher in watchers:
            for watched in watcher.watched:
                problems.add("watch", check_watch(log, watched))
                self.summary.watched_changes += len(watched.changes)
        self._check_leases(log, live, watchers, tenants, problems)
        if problems.count:
            history.save(self._cluster.folder / f"history-{problems.round}.jsonl")
        self._revision, self._state = revision, log.state
        self._cluster.checked = revision

    def _check_leases(
        self,
        log: Log,
        live: Sequence[int],
        watchers: Sequence[Watcher],
        tenants: Sequence[Tenant],
        problems: Problems,
    ) -> None:
        leases = [lease for tenant in tenants for lease in tenant.leases]
        self._leases += leases
        self.summary.leases += len(leases)
        self.summary.lease_renewals += sum(len(lease.renewed) - 1 for lease in leases)
        gone: dict[bytes, float] = {}
        for watcher in watchers:
            for key, when in watcher.gone.items():
                gone[key] = min(when, gone.get(key, when))
        known = {key: lease.id for lease in self._leases for key in lease.keys}
        problems.add("lease", check_lives(leases, gone))
        problems.add("lease", check_keys(self._state, log.changes, known))
        problems.add("lease", check_leftovers(log.state, live))

    async def _live_leases(self) -> list[int]:
        request, response = lease_pb2.LeaseLeasesRequest(), lease_pb2.LeaseLeasesResponse
        answer = await self._cluster.call(NAMES[0], "Lease/LeaseLeases", request, response, _SETTLE_SECONDS, wait=True)
        return [lease.ID for lease in answer.leases]

    async def _end_of_leases(self, problems: Problems) -> None:
        """Nobody renews anything any more and nothing fails: all leases end."""
        healed = time.monotonic()
        late: list[str] = []
        while (live := await self._live_leases()) and not late:
            await asyncio.sleep(0.2)
            # Also those whose grant was never answered.
            unheard = set(live) - {lease.id for lease in self._leases}
            leases = [*self._leases, *(Lease(number, MAX_TTL) for number in unheard)]
            late = overdue(leases, live, time.monotonic(), healed, _LEASE_PATIENCE)
        problems.add("lease", late)

    def _initial(self) -> dict[bytes, kv_model.State]:
        """The states of the groups of keys before the round."""
        states: dict[bytes, kv_model.State] = {}
        for key in (*REGISTERS, *GROUP):
            name = group_of(key)
            before = states.get(name, kv_model.State(self._revision))
            found = self._state.get(key)
            if found is not None:
                entry = (found.key, found.value, found.mod_revision)
                before = kv_model.State(self._revision, tuple(sorted((*before.keys, entry))))
            states[name] = before
        return states

    async def _changes(self, name: str, upto: int) -> list[Change]:
        """A member's changes after the last checked revision."""
        changes: list[Change] = []
        client = self._members[name]
        if upto <= self._revision:
            return changes
        async with (
            asyncio.timeout(_SETTLE_SECONDS),
            contextlib.aclosing(client.watch(*_ALL, since=self._revision)) as batches,
        ):
            async for batch in batches:
                changes.extend(batch.changes)
                if batch.revision >= upto:
                    return [change for change in changes if change.value.mod_revision <= upto]
        raise AssertionError("a watch does not end by itself")

    def _account(self, history: History, problems: Problems) -> None:
        summary = self.summary
        summary.rounds += 1
        summary.operations += len(history.operations)
        for operation in history.operations:
            summary.acknowledged_writes += operation.known and operation.writes
            summary.unknown_outcomes += operation.outcome == "unknown"
            if operation.key.startswith(CLAIMS):
                self._claims.append(operation)
        self._add_up(problems)

    def _add_up(self, problems: Problems) -> None:
        summary = self.summary
        summary.lost += problems.counts["lost"]
        summary.linearizability_violations += problems.counts["not linearizable"]
        summary.watch_violations += problems.counts["watch"]
        summary.lease_violations += problems.counts["lease"]
        summary.members_differ += problems.counts["members differ"]
        summary.other_violations += problems.counts["unmet"]

    async def _last_look(self) -> None:
        """Every member holds exactly what the changes add up to, and every claim that was acknowledged in any round."""
        problems = Problems(self._say, self._cluster.folder, 0)
        await self._end_of_leases(problems)
        await self._check(History(), (), (), problems)
        for name, client in self._members.items():
            present = {kv.key: kv for kv in (await client.range(*_ALL)).items}
            if present != self._state:
                problems.add("members differ", [f"{name} does not hold what its changes add up to"])
            lost = lost_keys(self._claims, {key: kv.value for key, kv in present.items()})
            problems.add("lost", [f"{name} has lost {key.decode()}" for key in lost])
        for name in NAMES:
            problems.add("unmet", [f"{name} has said: {trace}" for trace in _traces(self._cluster.output(name))])
        self._add_up(problems)


class Problems:
    """Violations of one round: counted, and the first few of each kind said."""

    def __init__(self, say: Callable[[str], None], folder: Path, number: int) -> None:
        self._say = say
        self.round = number
        self.counts: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many there are."""
        return self.counts.total()

    def add(self, kind: str, problems: Sequence[str]) -> None:
        """Note problems."""
        for problem in problems:
            if self.counts[kind] < 5:
                self._say(f"VIOLATION ({kind}): {problem}")
            self.counts[kind] += 1


def _traces(output: str) -> list[str]:
    """What looks like a mistake: each with the line before it and those that follow, down to the exception."""
    lines = output.splitlines()
    starts = [n for n, line in enumerate(lines) if "Traceback" in line or "ends because of an error" in line]
    return ["\n".join(lines[max(n - 1, 0) : n + 30]) for n in starts]
