"""How hard the fuzz tests try: few inputs, always the same. METARUN_FUZZ_EXAMPLES=20000 tries that many new ones."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = int(os.environ.get("METARUN_FUZZ_EXAMPLES", "0"))


def fuzz(examples: int) -> settings:
    """Return the settings of a test that tries `examples` inputs where METARUN_FUZZ_EXAMPLES names no other number."""
    return settings(
        max_examples=_EXAMPLES or examples,
        derandomize=not _EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
