"""What pods find in /etc/resolv.conf and /etc/hosts, and their host name. Pure but for reading the host's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kybern.api.types import Pod
from kybern.config.models import Cluster

_MAX_NAMESERVERS = 3
_MAX_HOSTNAME = 63
# Where systemd-resolved keeps the real servers when /etc/resolv.conf names its own stub.
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True, slots=True)
class Resolver:
    """The contents of a resolv.conf."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """The file."""
        lines = [f"search {' '.join(self.searches)}"] if self.searches else []
        lines += [f"nameserver {server}" for server in self.nameservers[:_MAX_NAMESERVERS]]
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "".join(line + "\n" for line in lines)


def parse_resolv(text: str) -> Resolver:
    """Read a resolv.conf."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search", *names]:
                searches = tuple(n for n in names if n != ".")
            case ["options", *names]:
                options += tuple(names)
    return Resolver(tuple(servers), searches, options)


def host_resolver(path: Path = Path("/etc/resolv.conf")) -> Resolver:
    """The host's own resolver, as pods can use it: a stub on loopback is not reachable from a pod."""
    try:
        found = parse_resolv(path.read_text(encoding="utf-8", errors="replace"))
        if found.nameservers == ("127.0.0.53",) and _RESOLVED.exists():
            found = parse_resolv(_RESOLVED.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Resolver()
    return found


def resolver_of(pod: Pod, cluster: Cluster, host: Resolver) -> Resolver:
    """What a pod's resolv.conf says, by dnsPolicy and dnsConfig."""
    policy = pod.spec.dns_policy
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    if policy == "None":
        base = Resolver()
    elif policy == "Default":
        base = host
    else:
        domain = cluster.domain.strip(".")
        searches = (f"{pod.namespace}.svc.{domain}", f"svc.{domain}", domain, *host.searches)
        base = Resolver((cluster.dns_address,), tuple(dict.fromkeys(searches)), ("ndots:5",))
    extra = pod.spec.dns_config
    if extra is None:
        return base
    options = {o.partition(":")[0]: o for o in base.options}
    options |= {o.name: f"{o.name}:{o.value}" if o.value else o.name for o in extra.options}
    return Resolver(
        tuple(dict.fromkeys((*base.nameservers, *extra.nameservers))),
        tuple(dict.fromkeys((*base.searches, *extra.searches))),
        tuple(options.values()),
    )


def hostname_of(pod: Pod, node: str) -> str:
    """The pod's host name."""
    if pod.spec.host_network:
        return node
    return pod.spec.hostname or pod.name[:_MAX_HOSTNAME].rstrip("-.")


def hosts_of(pod: Pod, cluster: Cluster, hostname: str, address: str, host_file: str) -> str:
    """The pod's /etc/hosts; that of the host (`host_file`) when it uses the host's network."""
    if pod.spec.host_network:
        lines = ["# Kept by Kybern; from the node's own file.", *host_file.rstrip("\n").splitlines()]
    else:
        domain = cluster.domain.strip(".")
        full = f"{hostname}.{pod.spec.subdomain}.{pod.namespace}.svc.{domain}\t" if pod.spec.subdomain else ""
        lines = [
            "# Kept by Kybern.",
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
            "fe00::0\tip6-localnet",
            "fe00::0\tip6-mcastprefix",
            "fe00::1\tip6-allnodes",
            "fe00::2\tip6-allrouters",
        ]
        if address:
            lines.append(f"{address}\t{full}{hostname}")
    if pod.spec.host_aliases:
        lines += ["", "# From the pod's hostAliases."]
        lines += ["\t".join((alias.ip, *alias.hostnames)) for alias in pod.spec.host_aliases]
    return "".join(line + "\n" for line in lines)
