"""Where frames leave for a socket: one system call a write, and as little beside it as can be."""

from streamcast.outlet.pure import Failed, Outlet, Writes, write_each

__all__ = ["Failed", "Outlet", "Writes", "write_each"]
