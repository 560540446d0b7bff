"""Images for trying things out, made of Debian's busybox-static: no registry is needed.

`kybern/hello:1` and `:2` answer over HTTP with their pod's and node's name, and with their version. `kybern/busybox`
is the same with a shell as its command.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lab.engine import Engine
from lab.errors import LabError

# POD and NODE come from the Pod's own fields (examples/hello.yaml). The first process of a container gets no default
# action for signals: without the trap, every stop would take the whole grace period.
_HELLO = """\
#!/bin/sh
trap 'exit 0' TERM INT
mkdir -p /www
printf 'hello %s from %s on %s\\n' "$VERSION" "${POD:-$(hostname)}" "${NODE:-somewhere}" > /www/index.html
httpd -f -v -p "${PORT:-8080}" -h /www &
wait
"""
_USERS = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Image:
    """An image of one layer."""

    reference: str
    layer: bytes
    changes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Changes when anything about the image does."""
        return hashlib.sha256(self.layer + json.dumps(self.changes).encode()).hexdigest()


@lru_cache(maxsize=1)
def images() -> tuple[Image, ...]:
    """All images.

    Raises:
        LabError: when busybox is not installed.
    """
    layer = _layer(_busybox())
    environment = f"ENV PATH={PATH}"
    hello = [
        Image(f"kybern/hello:{n}", layer, (environment, f"ENV VERSION={n}", "EXPOSE 8080", 'CMD ["/bin/hello"]'))
        for n in (1, 2)
    ]
    return *hello, Image("kybern/busybox:1", layer, (environment, 'CMD ["/bin/sh"]'))


def load(socket: Path) -> None:
    """Make sure that an engine has all images.

    Raises:
        LabError: when busybox is not installed, or the engine refuses.
    """
    engine = Engine(socket, timeout=60)
    for image in images():
        if not engine.has_image(image.reference, image.digest):
            label = f"LABEL kybern.io/digest={image.digest}"
            engine.import_image(image.reference, image.layer, [*image.changes, label])


def _busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise LabError("busybox is not installed", "apt-get install busybox-static")
    return Path(found).resolve()


def _layer(busybox: Path) -> bytes:
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for folder, mode in {"bin": 0o755, "etc": 0o755, "tmp": 0o1777, "www": 0o755, "root": 0o700}.items():
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        _add(archive, "bin/busybox", busybox.read_bytes(), 0o755)
        _add(archive, "bin/hello", _HELLO.encode(), 0o755)
        _add(archive, "etc/passwd", _USERS.encode(), 0o644)
        for applet in sorted(set(applets) - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))
