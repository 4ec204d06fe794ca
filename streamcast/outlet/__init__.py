"""Where frames leave for a socket: one system call a write, and as little beside it as can be.

The law of this package: `native` and `pure` do the same. `native` is in C, and there where a
compiler was when streamcast was installed; a delivery to a large room takes an eighth less with it.
"""

from streamcast.outlet.pure import Failed, Writes

try:
    from streamcast.outlet.native import Outlet, write_each
except ImportError:  # no compiler where it was installed
    from streamcast.outlet.pure import Outlet, write_each  # type: ignore[assignment]

__all__ = ["Failed", "Outlet", "Writes", "write_each"]
