"""What the lab remembers: `lab.json` in its folder, and a file in /run that says which folder a name belongs to.

Names in the kernel (namespaces, links, cgroups) are the machine's, whatever checkout the lab was started from. So the
file in /run is the lab's claim on its name and on its network.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import msgspec

from lab.errors import LabError
from lab.names import DEFAULT, Names
from lab.network import Subnet
from lab.paths import kybern_home
from lab.processes import Process

RUN = Path("/run/kybern-lab")
# What a lab's masters can run on; the daemon is called `store` either way.
OUR_STORE, ETCD = "kybern", "etcd"
KNOWN_STORES = (OUR_STORE, ETCD)
# Made here, since hosts are seen to in threads: msgspec crashes when two of them are the first to use a type.
_PROCESSES = msgspec.json.Decoder(Process)


class Claim(msgspec.Struct, frozen=True):
    """A lab that is up, or was and has not been taken down."""

    folder: str
    network: str


class LabFile(msgspec.Struct, frozen=True):
    """`lab.json`."""

    name: str
    network: str
    masters: list[str]
    nodes: list[str]
    # What the masters run on: a member of KNOWN_STORES.
    store: str = OUR_STORE


class Lab:
    """A lab's folders and files. Making one touches nothing."""

    def __init__(self, names: Names, folder: Path, file: LabFile) -> None:
        self.names = names
        self.folder = folder
        self.file = file
        self.subnet = Subnet(IPv4Network(file.network))

    @property
    def hosts(self) -> list[str]:
        """Masters, then nodes."""
        return [*self.file.masters, *self.file.nodes]

    @property
    def run_folder(self) -> Path:
        """Sockets and the like: paths in it are short, as the paths of sockets must be."""
        return run_folder(self.names)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "kubeconfig"

    def admin_files(self) -> dict[str, Path]:
        """The administrator's certificates: `ca`, `cert`, `key` for the API; `store-ca` and so on for the store."""
        pki = self.etc(self.file.masters[0]) / "pki"
        return {
            "ca": pki / "ca.crt",
            "cert": pki / "admin.crt",
            "key": pki / "admin.key",
            "store-ca": pki / "store-ca.crt",
            "store-cert": pki / "store-client.crt",
            "store-key": pki / "store-client.key",
        }

    def etc(self, host: str) -> Path:
        """What /etc/kybern is on a real host."""
        return self.folder / "hosts" / host / "etc"

    def data(self, host: str) -> Path:
        """What /var/lib is on a real host."""
        return self.folder / "hosts" / host / "data"

    def log(self, host: str, daemon: str) -> Path:
        """A daemon's output."""
        return self.folder / "hosts" / host / "log" / f"{daemon}.log"

    def ready_file(self, host: str, daemon: str) -> Path:
        """Written by the daemon once it serves."""
        return self.folder / "hosts" / host / "run" / f"{daemon}.ready"

    def process(self, host: str, daemon: str) -> Process | None:
        """The daemon's process as it was last started; None when it never was."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return _PROCESSES.decode(self._process_file(host, daemon).read_bytes())
        return None

    def remember(self, host: str, daemon: str, process: Process) -> None:
        """Keep what `process` gives back."""
        path = self._process_file(host, daemon)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(process))

    def save(self) -> None:
        """Write `lab.json`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "lab.json").write_bytes(msgspec.json.format(msgspec.json.encode(self.file), indent=2))

    def check_host(self, host: str) -> str:
        """The host.

        Raises:
            LabError: when there is none of that name.
        """
        if host not in self.hosts:
            raise LabError(f"the lab has no host {host}; it has {', '.join(self.hosts)}")
        return host

    def _process_file(self, host: str, daemon: str) -> Path:
        return self.folder / "hosts" / host / "run" / f"{daemon}.process"


def folder_of(name: str) -> Path:
    """Where a lab of this name has its files."""
    return kybern_home() / "lab" if name == DEFAULT else kybern_home() / "labs" / name


def run_folder(names: Names) -> Path:
    """See `Lab.run_folder`."""
    return RUN / names.lab


def open_lab(names: Names) -> Lab:
    """The lab that is up.

    Raises:
        LabError: when there is none of that name.
    """
    folder = folder_of(names.lab)
    option = "" if names.lab == DEFAULT else f" --name {names.lab}"
    try:
        file = msgspec.json.decode((folder / "lab.json").read_bytes(), type=LabFile)
    except FileNotFoundError as error:
        raise LabError(f"the lab {names.lab} is not up", f"`kybern-lab up{option}` brings it up") from error
    except (OSError, msgspec.MsgspecError) as error:
        hint = f"`kybern-lab down{option}` removes what is left of it"
        raise LabError(f"cannot read {folder / 'lab.json'}: {error}", hint) from error
    return Lab(names, folder, file)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Only one command at a time takes names and networks. The lock is on the folder itself: no file is left."""
    while True:
        RUN.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(RUN, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever held it before may have removed the folder: then the lock is on nothing.
            if RUN.exists() and os.path.samestat(os.fstat(descriptor), RUN.stat()):
                yield
                return
        finally:
            os.close(descriptor)


def claims() -> dict[str, Claim]:
    """The claims that there are, by lab."""
    found = {}
    for path in RUN.glob("*.json"):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            found[path.stem] = msgspec.json.decode(path.read_bytes(), type=Claim)
    return found


def claim(names: Names, claim: Claim) -> None:
    """Take a name and a network; call it `locked`."""
    (RUN / f"{names.lab}.json").write_bytes(msgspec.json.encode(claim))


def release(names: Names) -> None:
    """Give the name back. The folder goes with the last of them."""
    with locked():
        (RUN / f"{names.lab}.json").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            RUN.rmdir()
