"""Who manages which fields of an object, and server-side apply, which is built on it.

Every write records in `metadata.managedFields` which fields its manager has set (`track_update`). `apply` merges a
manager's configuration by ownership: it removes what the manager no longer applies and nobody else owns, and refuses to
change what others own.
"""

from kybern.api.managed_fields.applying import apply
from kybern.api.managed_fields.tracking import track_update

__all__ = ["apply", "track_update"]
