from __future__ import annotations

import numpy as np

from metarun.tasks.rated.data import Feature, Owners, RatingData


def test_a_feature_is_found_by_its_owner_and_name():
    year = Feature("year", "number", np.array([1990.0]))
    none = np.zeros(0, dtype=np.int64)
    data = RatingData(none, none, np.zeros(0), Owners(("u",)), Owners(("i",), (year,)), (1.0, 5.0), "x")
    assert data.feature("item", "year") is year
    assert data.feature("user", "year") is None
