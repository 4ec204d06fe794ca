"""What is in C; all else is in pyproject.toml."""

from setuptools import Extension, setup

# Without a compiler there is Python for it: see streamcast/outlet.
NATIVE = Extension("streamcast.outlet.native", ["streamcast/outlet/native.c"], optional=True)

setup(ext_modules=[NATIVE])
