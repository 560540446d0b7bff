"""`kybern-lab up`: hosts, configuration, daemons. Doing it again starts what is not running."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import msgspec

from lab import daemons, images, network, processes, provision, state, teardown
from lab.balancer import Config
from lab.errors import LabError
from lab.names import Names
from lab.progress import Progress
from lab.state import KNOWN_STORES, OUR_STORE, Claim, Lab, LabFile

# Where processes of the lab that are on no host are kept.
MACHINE = "machine"
BALANCER = "balancer"
MOST_MASTERS, MOST_NODES = 9, 50


def up(names: Names, masters: int, nodes: int, progress: Progress, store: str = "") -> Lab:
    """Bring a lab up, or what is not running of it. `store` is what it runs on; empty for ours, or what it has.

    Raises:
        LabError: when the name is taken by another checkout's lab, or something does not start.
    """
    if not (1 <= masters <= MOST_MASTERS and 0 <= nodes <= MOST_NODES):
        raise LabError(f"a lab has 1 to {MOST_MASTERS} masters and 0 to {MOST_NODES} nodes")
    if store and store not in KNOWN_STORES:
        raise LabError(f"--store {store}: must be {' or '.join(KNOWN_STORES)}")
    file = LabFile(names.lab, "", [f"m{n + 1}" for n in range(masters)], [f"n{n + 1}" for n in range(nodes)], store)
    lab = _existing(names, file, progress)
    if lab is None:
        with progress.step(f"{masters + nodes} hosts"):
            lab = _create(names, msgspec.structs.replace(file, store=store or OUR_STORE))
        with progress.step("certificates and configuration (kybern init, kybern join)"):
            provision.provision(lab)
        lab.save()  # last: a lab that has this file is complete
    _start(lab, progress)
    return lab


def _existing(names: Names, wanted: LabFile, progress: Progress) -> Lab | None:
    """The lab when it is up already; what is left of one that is not is removed."""
    folder = state.folder_of(names.lab)
    taken = state.claims().get(names.lab)
    if taken is not None and taken.folder != str(folder):
        raise LabError(
            f"there is a lab {names.lab} already, of {taken.folder}",
            "choose another name with --name, or take that one down there",
        )
    if not teardown.leftovers(names, folder):
        return None
    try:
        lab = state.open_lab(names)
        complete = {names.switch, *map(names.namespace, lab.hosts)} == set(network.namespaces(names))
    except LabError:
        complete = False
    if not complete:
        with progress.step("removing what is left of an earlier lab"):
            teardown.remove(names, folder, progress.say)
        return None
    if (lab.file.masters, lab.file.nodes) != (wanted.masters, wanted.nodes):
        raise LabError(
            f"the lab {names.lab} is up, with {len(lab.file.masters)} masters and {len(lab.file.nodes)} nodes",
            "take it down first, or choose another name with --name",
        )
    if wanted.store and lab.file.store != wanted.store:
        raise LabError(
            f"the lab {names.lab} is up, and runs on {lab.file.store}",
            "take it down first, or choose another name with --name",
        )
    return lab


def _create(names: Names, file: LabFile) -> Lab:
    with state.locked():
        taken = [*network.networks_in_use(), *(IPv4Network(c.network) for c in state.claims().values())]
        subnet = network.free_subnet(taken)
        folder = state.folder_of(names.lab)
        state.claim(names, Claim(str(folder), str(subnet.network)))
    lab = Lab(names, folder, msgspec.structs.replace(file, network=str(subnet.network)))
    lab.folder.mkdir(parents=True, exist_ok=True)
    network.create(names, subnet, lab.hosts)
    return lab


def _start(lab: Lab, progress: Progress) -> None:
    """In the order in which they need each other; what does not, at the same time."""
    masters, nodes = lab.file.masters, lab.file.nodes
    with progress.step("stores and Docker engines"):
        stores = [partial(_ensure, lab, m, "store") for m in masters]
        _together([*stores, *(partial(_engine, lab, n) for n in nodes)])
    with progress.step("masters"):
        ensure_balancer(lab)
        _together(partial(_ensure, lab, m, "master") for m in masters)
    if nodes:
        with progress.step("nodes"):
            _together(partial(_ensure, lab, n, "node") for n in nodes)


def _engine(lab: Lab, node: str) -> None:
    _ensure(lab, node, "containerd")
    _ensure(lab, node, "docker")
    images.load(daemons.socket_path(lab, node, "docker"))


def _ensure(lab: Lab, host: str, daemon: str) -> None:
    process = lab.process(host, daemon)
    if process is None or not process.state:
        daemons.start(lab, host, daemon)
    daemons.wait_ready(lab, host, daemon)


def ensure_balancer(lab: Lab) -> None:
    """Start the balancer when it is not running.

    Raises:
        LabError: when it does not start.
    """
    running = lab.process(MACHINE, BALANCER)
    if running is not None and running.state:
        return
    files = lab.admin_files()
    backends = {m: lab.subnet.host(m) for m in lab.file.masters}
    config = Config(lab.subnet.machine, [6443, 6444], backends, 6443, files["ca"], files["cert"], files["key"])
    path, ready = lab.folder / "balancer.json", lab.ready_file(MACHINE, BALANCER)
    path.write_bytes(msgspec.json.encode(config, enc_hook=str))
    ready.parent.mkdir(parents=True, exist_ok=True)
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "lab.balancer", str(path)]
    environment = {"KYBERN_READY_FILE": str(ready)}
    process = processes.start(lab.names, command, lab.log(MACHINE, BALANCER), environment=environment)
    lab.remember(MACHINE, BALANCER, process)
    daemons.wait_ready(lab, MACHINE, BALANCER)


def _together(actions: Iterable[Callable[[], None]]) -> None:
    """Do all at once; the first error is raised when all have ended."""
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(action) for action in actions]
    for future in futures:
        future.result()


def down(names: Names, progress: Progress) -> teardown.Removed:
    """Take a lab down, whatever is left of it.

    Raises:
        LabError: when it belongs to another checkout that is still there, or something cannot be removed.
    """
    folder = state.folder_of(names.lab)
    taken = state.claims().get(names.lab)
    if taken is not None and taken.folder != str(folder) and Path(taken.folder).exists():
        raise LabError(f"the lab {names.lab} belongs to {taken.folder}", "take it down there")
    with progress.step(f"taking the lab {names.lab} down"):
        removed = teardown.remove(names, folder, progress.say)
        state.release(names)
    return removed
