"""Tar archives of data sets: metarun unpacks one into the cache folder once, and reads the files there."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tarfile
import tempfile
from pathlib import Path

from metarun.errors import UserError, first_line, printable
from metarun.files.cache import private_folder
from metarun.records.display import doing

log = logging.getLogger(__name__)

TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Endings of the archives that metarun unpacks."""


def unpacked(root: Path) -> Path:
    """Return the folder with the content of a tar archive; `root` itself where it is none.

    A changed archive is unpacked again. Nothing is written outside of the folder, and no link or device is made that leads out of it.
    Raises UserError for a damaged archive, for an entry outside of it, and where there is no room.
    """
    if not (root.name.lower().endswith(TARS) and root.is_file()):
        return root
    facts = root.stat()
    digest = hashlib.sha256(repr((str(root.resolve()), facts.st_size, facts.st_mtime_ns)).encode()).hexdigest()[:16]
    folder = private_folder("unpacked")
    if folder is None or not hasattr(tarfile, "data_filter"):  # Python before 3.11.4 has no filter against harmful entries
        raise UserError(f"metarun cannot unpack '{printable(str(root))}' here; unpack it, and give the folder as task.root.")
    content = folder / f"{root.name.split('.')[0]}-{digest}"
    if not content.is_dir():
        log.info("unpacking '%s' into %s, once", printable(str(root)), content)
        with doing(f"unpacking {printable(root.name)}"):
            _unpack(root, content)
    return content


def _unpack(root: Path, content: Path) -> None:
    """Unpack into a folder beside `content`, and rename it when it is complete."""
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=content.parent))
    try:
        with tarfile.open(root) as archive:
            archive.extractall(partial, filter="data")
        partial.rename(content)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if not content.is_dir():  # else another process was faster
            raise UserError(
                f"cannot unpack '{printable(str(root))}' into the cache folder ({printable(first_line(error))}); unpack it yourself, and "
                "give the folder as task.root."
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
