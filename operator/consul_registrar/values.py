"""Frozen values that cost little to make: `dataclass(frozen=True)` for those of which every Pod needs several.

Decides who enforces that they are frozen: the type checker, alone. Python's own way sets each field through
`object.__setattr__`, which takes six times as long, and came to a tenth of the CPU of a start with many Pods.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(*, frozen: bool, eq: bool = True, **options: Any) -> Any:
        """As `dataclass`; `frozen` makes it hashable, as there."""
        return dataclass(eq=eq, unsafe_hash=frozen and eq, **options)


__all__ = ["record"]
