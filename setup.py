"""What is in C; all else is in pyproject.toml."""

from setuptools import Extension, setup

# Without a compiler there is Python for each: see streamcast/outlet and streamcast/inlet.
NATIVE = [
    Extension(f"streamcast.{package}.native", [f"streamcast/{package}/native.c"], optional=True)
    for package in ("inlet", "outlet")
]

setup(ext_modules=NATIVE)
