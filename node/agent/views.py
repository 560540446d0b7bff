"""Views with some fields replaced."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import msgspec

from kybern.api.types import View

V = TypeVar("V", bound=View)


def replaced(view: V, **changes: Any) -> V:
    """A copy of a view with other values in some of its fields."""
    # Type checkers do not see that views are msgspec structs (kybern.struct).
    return cast(V, msgspec.structs.replace(cast(Any, view), **changes))
