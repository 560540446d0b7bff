"""Files of a host's configuration folder and bundles of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from kybern.cli.cluster import ClusterFile
from kybern.cli.errors import CliError
from kybern.cli.issuing import Files
from kybern.config.loading import dump, load
from kybern.daemon import StartupError
from kybern.pki import write_private
from kybern.struct import Frozen

CLUSTER = "cluster.yaml"
_MANIFEST = "bundle.json"
# Far more than a bundle ever holds; what is larger is not one.
_MOST_BYTES = 1 << 20


class Manifest(Frozen, forbid_unknown_fields=True):
    """What a bundle says about itself. `address` is the host's own."""

    kind: Literal["master", "node"]
    name: str
    address: str
    cluster: ClusterFile


def existing(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of the files that are there already."""
    return [name for name in names if (folder / name).exists()]


def write(folder: Path, files: Files, *, force: bool) -> None:
    """Write all files; private ones (keys, kubeconfigs) are readable by their owner alone.

    Raises:
        CliError: when one is there already and `force` is off (nothing is written then), or cannot be written.
    """
    if not force and (there := existing(folder, files)):
        names = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        raise CliError(
            f"{folder} already has {names}; nothing was written",
            "this host may belong to a cluster: choose another --dir, or say --force to replace these files",
        )
    try:
        for part in ("", "pki"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "pki").chmod(0o700)
        for name, data in files.items():
            if name.endswith((".key", ".kubeconfig")):
                write_private(folder / name, data)
            else:
                _replace(folder / name, data)
    except OSError as error:
        raise CliError(f"cannot write {error.filename}: {error.strerror}", "does it need root?") from error


def configuration(config: object) -> bytes:
    """A configuration as a file's content."""
    return dump(config).encode()


def read_cluster(folder: Path) -> ClusterFile:
    """The cluster that a host belongs to.

    Raises:
        CliError: when the folder has none.
    """
    path = folder / CLUSTER
    if not path.exists():
        raise CliError(
            f"there is no {path}: this host belongs to no cluster yet",
            "`kybern init` begins one, `kybern join` makes this host part of one; --dir names another folder",
        )
    try:
        return load(path, ClusterFile)
    except StartupError as error:
        raise CliError(str(error)) from error


def pack(manifest: Manifest, files: Files) -> bytes:
    """A bundle: a tar of the files, with the manifest first."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in {_MANIFEST: msgspec.json.encode(manifest), **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o600
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def unpack(path: Path) -> tuple[Manifest, Files]:
    """What a bundle holds. Entries are taken as names alone: none of them can lead out of the folder.

    Raises:
        CliError: when the file cannot be read or is not a bundle.
    """
    files: Files = {}
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CliError(f"{path} is not a bundle: it is too large")
        with tarfile.open(path, mode="r:") as archive:
            for member in archive:
                source = archive.extractfile(member) if member.isfile() else None
                if source is not None:
                    files[member.name] = source.read()
        manifest = msgspec.json.decode(files.pop(_MANIFEST), type=Manifest)
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror or error}") from error
    except (tarfile.TarError, KeyError, msgspec.MsgspecError) as error:
        raise CliError(
            f"{path} is not a bundle of this version of Kybern", "`kybern certs` on the first master makes bundles"
        ) from error
    if strange := [n for n in files if not _is_pki(n)]:
        raise CliError(f"{path} holds {strange[0]!r}, which no bundle has; nothing was written")
    return manifest, files


def _is_pki(name: str) -> bool:
    folder, _, file = name.partition("/")
    return folder == "pki" and file.endswith((".crt", ".key")) and "/" not in file and not file.startswith(".")


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.replace(path)
