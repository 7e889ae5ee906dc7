"""`python -m metarun` is `metarun`."""

from metarun.cli.main import entry

if __name__ == "__main__":
    entry()
