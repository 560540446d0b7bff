"""Immutable msgspec structs whose subclasses need not repeat that they are immutable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, dataclass_transform

import msgspec

if TYPE_CHECKING:
    # msgspec declares its metaclass a dataclass transform that is not frozen by default, so type checkers want
    # `frozen=True` on every subclass of a frozen struct; msgspec itself inherits the option.
    @dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
    class Frozen:
        """A frozen struct; options of subclasses are msgspec's."""

        def __init_subclass__(cls, **options: Any) -> None: ...

else:

    class Frozen(msgspec.Struct, frozen=True):
        """A frozen struct; options of subclasses are msgspec's."""

        def __init_subclass__(cls, **options: Any) -> None:
            super().__init_subclass__(**options)
