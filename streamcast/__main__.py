"""Makes `python -m streamcast` the same as `streamcast`."""

from streamcast.cli import main

if __name__ == "__main__":
    main()
