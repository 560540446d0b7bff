"""What the lab calls the things that it makes in the kernel. Pure.

`down` finds what it must remove by these names, so nothing may be called by another scheme.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from lab.errors import LabError

DEFAULT = "lab"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
# The kernel's limit for the names of links (IFNAMSIZ without the final NUL).
_LINK_LENGTH = 15
_PREFIX = "kyb-"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one lab."""

    lab: str

    @property
    def link(self) -> str:
        """The machine's own link into the lab's network."""
        plain = _PREFIX + self.lab
        if len(plain) <= _LINK_LENGTH:
            return plain
        return f"{plain[:10]}-{hashlib.sha256(self.lab.encode()).hexdigest()[:4]}"

    @property
    def switch(self) -> str:
        """The namespace that the bridge is in."""
        return self.namespace("switch")

    def namespace(self, host: str) -> str:
        """A host's namespace. No lab's or host's name has a `+`, so no two labs can share one."""
        return f"{_PREFIX}{self.lab}+{host}"

    def cgroup(self, host: str) -> str:
        """The parent of the cgroups of a host's containers."""
        return self.namespace(host)

    def owns(self, name: str) -> bool:
        """Whether a namespace or cgroup of this name is the lab's."""
        return name.startswith(f"{_PREFIX}{self.lab}+")


def check(lab: str) -> Names:
    """The names of the lab that is called so.

    Raises:
        LabError: when it cannot be called so.
    """
    if not _NAME.fullmatch(lab):
        raise LabError(f"{lab!r} cannot be a lab's name: lower case letters, digits and '-', at most 32 of them")
    return Names(lab)
