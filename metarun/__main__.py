"""`python -m metarun` is `metarun`."""

from metarun.cli import entry

if __name__ == "__main__":
    entry()
