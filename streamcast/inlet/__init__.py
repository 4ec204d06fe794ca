"""Where frames come from a socket: what nearly all of them are, in one step.

The law of this package: `native` and `pure` do the same. `native` is in C, and there where a
compiler was when streamcast was installed.
"""

from streamcast.inlet.pure import unmasked

try:
    from streamcast.inlet.native import usual_text
except ImportError:  # no compiler where it was installed
    from streamcast.inlet.pure import usual_text

__all__ = ["unmasked", "usual_text"]
