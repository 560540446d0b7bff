"""`kybern-lab env`: what clients need to know, as a shell's exports."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from lab.paths import kybern_home
from lab.state import Lab


def environment(lab: Lab) -> dict[str, str]:
    """Variables for kubectl, etcdctl, kybern and gRPC clients."""
    files = lab.admin_files()
    first = lab.etc(lab.file.masters[0])
    return {
        "KUBECONFIG": str(lab.kubeconfig),
        "ETCDCTL_API": "3",
        "ETCDCTL_ENDPOINTS": ",".join(f"https://{lab.subnet.host(m)}:2379" for m in lab.file.masters),
        "ETCDCTL_CACERT": str(files["store-ca"]),
        "ETCDCTL_CERT": str(files["store-cert"]),
        "ETCDCTL_KEY": str(files["store-key"]),
        "KYBERN_DIR": str(first),
        "KYBERN_STORE_CONFIG": str(first / "store.yaml"),
        "KYBERN_GRPC": f"{lab.subnet.machine}:6444",
        "KYBERN_CACERT": str(files["ca"]),
        "KYBERN_CERT": str(files["cert"]),
        "KYBERN_KEY": str(files["key"]),
    }


def exports(lab: Lab) -> str:
    """Lines for `eval`; kubectl and the `kybern` commands come first on the PATH."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment(lab).items()]
    folders = ":".join(shlex.quote(str(f)) for f in (kybern_home() / "bin", Path(sys.executable).parent))
    return "\n".join([*lines, f'export PATH={folders}:"$PATH"'])
