from __future__ import annotations

import math

import pytest

from tunedeck.core.text import four_digits


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (14023.4, "14023"),
        (9999.7, "10000"),
        (-1234567.0, "-1234567"),
        (3.14159, "3.142"),
        (2e-5, "2e-05"),
        (9999999.7, "1e+07"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_a_measured_number_is_read_at_a_glance(value: float, shown: str) -> None:
    assert four_digits(value) == shown
