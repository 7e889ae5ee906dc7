"""Pickles of plain values and NumPy arrays, read without running code that a file names.

A pickle may name any function of any module, and `pickle.load` calls it. This reader knows the few functions that rebuild a NumPy array and
refuses every other name. So it makes only numbers, text, bytes, lists, dictionaries and arrays.
"""

from __future__ import annotations

import codecs
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from metarun.errors import UserError, first_line, printable

_ARRAY = np.zeros(1, dtype=np.uint8)
_ALLOWED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _ARRAY.__reduce__()[0] for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _ARRAY.__reduce_ex__(5)[0] for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}
"""The functions and classes that a pickle of arrays names, in any version of NumPy. Under protocol 2, `encode` rebuilds bytes."""


class _RefusedError(Exception):
    """A pickle names something that is not in `_ALLOWED`."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _RefusedError(f"{module}.{name}")
        return _ALLOWED[module, name]


def read_plain(path: Path) -> dict[str, Any]:
    """Return the dictionary of a pickle, with text as keys; byte strings of Python 2 become text by Latin-1.

    Raises UserError for a pickle that names code other than NumPy's arrays, for a damaged file, and where the content is no dictionary.
    """
    shown = printable(str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of old forms of arrays
            with path.open("rb") as file:
                content = _PlainUnpickler(file, encoding="latin1").load()
    except _RefusedError as error:
        raise UserError(
            f"'{shown}' is a pickle that names the code {printable(str(error))}; metarun does not run code of a data set."
        ) from None
    except OSError as error:
        raise UserError(f"cannot read '{shown}' ({error.strerror}).") from error
    except Exception as error:  # damaged bytes raise exceptions of every kind
        raise UserError(f"'{shown}' is damaged, or no pickle ({printable(first_line(error))}); download it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"'{shown}' holds no dictionary; is it the right file?")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}
