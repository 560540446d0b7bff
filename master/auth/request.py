"""What is asked when a request is authorized, and how a refusal is worded."""

from __future__ import annotations

from dataclasses import dataclass

from kybern.api import errors
from kybern.api.errors import StatusError
from kybern.api.resources import Resource
from master.apiserver.interface import User


@dataclass(frozen=True, slots=True)
class Access:
    """One request: who wants to do what with which object. Of the selector the name and the node matter."""

    user: User
    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    # What the field selector of a list or watch narrows it to.
    selected_name: str = ""
    selected_node: str = ""

    def denied(self, why: str = "") -> StatusError:
        """The refusal, in Kubernetes' words."""
        path = f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        text = (
            f'User "{self.user.name}" cannot {self.verb} resource "{path}" in API group "{self.resource.group}" {where}'
        )
        error = errors.forbidden(
            self.resource.plural, self.resource.group, self.name, f"{text}: {why}" if why else text
        )
        return error
