from __future__ import annotations

import asyncio

import pytest

from tunedeck.core.errors import UsageError
from tunedeck.core.inventory import inventory_of, tables_of


def test_this_machine_tells_its_processors_and_memory() -> None:
    found = asyncio.run(inventory_of("local", {"executor": "local"}))
    first, gpus = tables_of(found)
    text = "\n".join(first.lines())
    assert f"CPUs    {found['cpus']}" in text
    assert f"{found['memory'] / 2**30:.1f} GiB" in text
    assert gpus.title == "GPUs"
    assert bool(gpus.rows) == bool(found["gpus"])


def test_a_cluster_is_shown_by_partition_and_job() -> None:
    found = {
        "version": "23.11",
        "partitions": [
            {
                "name": "gpu",
                "state": "up",
                "time_limit": "4:00:00",
                "nodes": 4,
                "idle_nodes": 1,
                "gpus": 32,
                "gpus_free": 8,
                "running": 3,
                "pending": 2,
            }
        ],
        "jobs": [],
    }
    version, partitions, jobs = tables_of(found)
    assert version.lines() == ["Version  23.11"]
    assert "1 of 4" in partitions.lines()[1]
    assert "8 of 32" in partitions.lines()[1]
    assert jobs.lines() == ["none"]


def test_what_no_one_has_foreseen_is_a_table_too() -> None:
    found = {"flavors": [{"name": "a10g-small", "usd_per_hour": 1.0}, {"name": "cpu"}]}
    (flavors,) = tables_of(found)
    assert flavors.title == "Flavors"
    assert flavors.lines() == ["Name        USD per hour", "a10g-small  1.00", "cpu"]


def test_an_executor_without_a_backend_is_named() -> None:
    with pytest.raises(UsageError, match="nowhere"):
        asyncio.run(inventory_of("nowhere", {}))


def test_a_table_that_is_too_wide_has_its_widest_columns_cut() -> None:
    (table,) = tables_of(
        {"groups": [{"name": "pool", "gpu": "NVIDIA-H100-80GB-HBM3", "gpus": 8.0}]}
    )
    assert table.lines(26) == ["Name  GPU             GPUs", "pool  NVIDIA-H100-8…  8"]
    assert max(map(len, table.lines(5))) == 18  # six characters of each stay
