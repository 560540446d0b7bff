"""What a list or a watch asks for: namespace, labels, fields."""

from __future__ import annotations

from dataclasses import dataclass

from kybern.api import errors, fields, selectors
from kybern.api.resources import Resource
from kybern.api.selectors import EVERYTHING, Operator, Selector
from master.apiserver.entry import Entry


@dataclass(frozen=True, slots=True)
class Selection:
    """The objects of one resource that a request is about."""

    resource: Resource
    namespace: str = ""
    labels: Selector = EVERYTHING
    fields: Selector = EVERYTHING

    @property
    def everything(self) -> bool:
        """Whether labels and fields do not matter."""
        return self.labels.empty and self.fields.empty

    def matches(self, entry: Entry) -> bool:
        """Whether an object is selected."""
        if self.namespace and entry.namespace != self.namespace:
            return False
        if not self.fields.empty and not self.fields.matches(entry.fields(self.resource)):
            return False
        return self.labels.empty or self.labels.matches(entry.labels)

    def exact(self, path: str) -> str | None:
        """The one value that the field under `path` must have; None when the selector does not say so."""
        for requirement in self.fields.requirements:
            if requirement.key == path and requirement.operator is Operator.IN and len(requirement.values) == 1:
                return next(iter(requirement.values))
        return None


def select(resource: Resource, namespace: str, labels: str, field_text: str) -> Selection:
    """The selection that a request's texts describe.

    Raises:
        StatusError: 400 when a selector cannot be read.
    """
    try:
        by_labels = selectors.parse_labels(labels)
        by_fields = selectors.parse_fields(field_text, fields.supported(resource)) if field_text else EVERYTHING
    except ValueError as error:
        raise errors.bad_request(str(error)) from None
    return Selection(resource, namespace, by_labels, by_fields)
