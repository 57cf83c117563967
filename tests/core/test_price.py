from __future__ import annotations

from tunedeck.core.price import price_words


def test_the_ceiling_comes_first_and_then_what_it_is_made_of() -> None:
    price = {
        "flavor": "t4-small",
        "unit_price_usd": 0.006667,
        "unit": "minute",
        "timeout_s": 5400,
        "attempts": 1,
        "at_most_usd": 0.6,
    }
    assert price_words(price) == "at most $0.60: t4-small at $0.006667 a minute for 90 minutes"
    twice = price_words({**price, "attempts": 2, "timeout_s": 3600, "at_most_usd": 0.8})
    assert twice == "at most $0.80: t4-small at $0.006667 a minute for 1 hour, 2 times"


def test_what_a_service_does_not_tell_is_left_out() -> None:
    assert price_words({"shape": "gpu.8xh100"}) == "gpu.8xh100"
    assert price_words({"at_most_usd": 3}) == "at most $3.00"
