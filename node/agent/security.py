"""Who a container's processes are: the container's securityContext over the pod's. Pure."""

from __future__ import annotations

from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod
from kybern.api.types.pods import SecurityContext
from node.agent.failures import ActionError
from node.runtime.interface import Image, Security

_CONFIG_ERROR = "CreateContainerConfigError"


def security_of(pod: Pod, spec: ContainerSpec, image: Image) -> Security:
    """What the runtime is told.

    Raises:
        ActionError: when the container must not run as root and would, or may.
    """
    of_pod = pod.spec.security_context
    own = spec.security_context or SecurityContext()
    user = own.run_as_user if own.run_as_user is not None else of_pod.run_as_user
    group = own.run_as_group if own.run_as_group is not None else of_pod.run_as_group
    non_root = own.run_as_non_root if own.run_as_non_root is not None else of_pod.run_as_non_root
    if non_root:
        _must_not_be_root(user, image)
    groups = of_pod.supplemental_groups
    if of_pod.fs_group is not None:
        groups = (*groups, of_pod.fs_group)
    capabilities = own.capabilities
    return Security(
        user=_user(user, group, image),
        supplemental_groups=tuple(dict.fromkeys(groups)),
        privileged=own.privileged,
        read_only_root=own.read_only_root_filesystem,
        allow_privilege_escalation=own.allow_privilege_escalation is not False,
        add_capabilities=capabilities.add if capabilities is not None else (),
        drop_capabilities=capabilities.drop if capabilities is not None else (),
    )


def _user(user: int | None, group: int | None, image: Image) -> str:
    if user is None and group is None:
        return ""
    name = str(user) if user is not None else image.user.partition(":")[0] or "0"
    return name if group is None else f"{name}:{group}"


def _must_not_be_root(user: int | None, image: Image) -> None:
    if user is not None:
        if user == 0:
            raise ActionError(_CONFIG_ERROR, "container's runAsUser breaks non-root policy")
        return
    name = image.user.partition(":")[0]
    if not name or name == "0":
        raise ActionError(_CONFIG_ERROR, "container has runAsNonRoot and image will run as root")
    if not name.isdecimal():
        text = f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        raise ActionError(_CONFIG_ERROR, text)
