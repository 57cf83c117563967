"""Run:ai: the logs of all pods, each line once, whatever becomes of the streams and the pods."""

from __future__ import annotations

import stat
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.core.backends.cloud_runs import lines_of, submit, texts
from tests.system.clouds.runai import FakeRunAI
from tests.system.clouds.runai_place import RunAIPlace
from tests.system.clouds.runai_schema import CLAIM
from tunedeck.core.backends.base import LogLine
from tunedeck.core.backends.cloud import http
from tunedeck.core.errors import AuthenticationError, ReachError
from tunedeck.core.plan import Launch
from tunedeck.core.states import RunState


@pytest.fixture
def place(runai_place: RunAIPlace) -> RunAIPlace:
    return runai_place


def of_nodes(nodes: int) -> Launch:
    return Launch("command", "tunedeck.trainer", ("sft",), nodes=nodes)


def of_node(number: int, lines: list[str]) -> list[str]:
    """What one node said, of the lines of all."""
    mark = f"[{number}] "
    if number == 0:
        return [line for line in lines if not line.startswith("[")]
    return [line.removeprefix(mark) for line in lines if line.startswith(mark)]


@pytest.mark.slow
async def test_all_pods_are_read_and_named_over_cut_streams(
    place: RunAIPlace, runai: FakeRunAI
) -> None:
    runai.cuts = [2, 0, 5, 7, 3]
    plan = place.plan('for i in $(seq 1 30); do echo "$NODE_RANK $i"; done', launch=of_nodes(3))
    backend, handle = await submit(place, plan)
    entries = await lines_of(backend, handle)
    for number in range(3):
        expected = [*(f"{number} {i}" for i in range(1, 31)), "tunedeck: exit=0"]
        assert of_node(number, texts(entries)) == expected
    for at in (0, 40, 91):
        rest = texts(await lines_of(backend, handle, entries[at].cursor))
        assert sorted(rest) == sorted(texts(entries)[at + 1 :])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["websocket", "kubernetes", "copy"])
async def test_a_pod_that_starts_again_is_read_from_its_first_line(
    place: RunAIPlace, runai: FakeRunAI, tmp_path: Path, way: str
) -> None:
    place.values["max_requeues"] = 1
    if way == "kubernetes":
        place.values["kube_apiserver_url"] = runai.kube_url
    if way == "copy":
        volume = runai.volume(CLAIM)
        place.values |= {
            "launched_from_cluster": True,
            "pvc_nemo_run_dir": f"{volume}/tunedeck",
            "pvcs": [{"path": str(volume), "existingPvc": True, "claimName": CLAIM}],
        }
    mark, go = tmp_path / "was here", tmp_path / "go"
    plan = place.plan(
        f'if [ "$NODE_RANK" = 1 ]; then echo beside; while [ ! -e "{go}" ]; do sleep 0.1; done;'
        f' elif [ -e "{mark}" ]; then echo second; sleep 0.3; echo last; touch "{go}"; else'
        f' echo first; echo of all; touch "{mark}"; touch "{go}"; exit 3; fi',
        launch=of_nodes(2),
    )
    backend, handle = await submit(place, plan)
    entries: list[LogLine] = []
    async with aclosing(backend.logs(handle, None, follow=True)) as lines:
        async for entry in lines:
            entries.append(entry)
            if entry.line == b"second":  # left in mid-stream, and read on by another process
                break
    entries += await lines_of(place.backend(plan), handle, entries[-1].cursor)
    assert of_node(0, texts(entries)) == [
        *("first", "of all", "tunedeck: exit=3"),
        *("second", "last", "tunedeck: exit=0"),
    ]
    assert (await backend.status(handle)).state is RunState.SUCCEEDED


async def test_a_log_whose_beginning_is_gone_is_read_on_after_its_last_line(
    place: RunAIPlace, runai: FakeRunAI
) -> None:
    backend, handle = await submit(place, place.plan("seq 1 60"))
    entries = await lines_of(backend, handle)
    runai.turned_over = 20
    for at in (25, 50):
        rest = texts(await lines_of(backend, handle, entries[at].cursor))
        assert rest == texts(entries)[at + 1 :]


@pytest.mark.slow
async def test_a_cluster_that_gives_out_one_pod_alone_is_found_out(
    place: RunAIPlace, runai: FakeRunAI
) -> None:
    runai.gives_pods = False
    plan = place.plan("echo node $NODE_RANK; sleep 1", launch=of_nodes(2))
    backend, handle = await submit(place, plan)
    entries = await lines_of(backend, handle)
    assert of_node(0, texts(entries)) == ["node 0", "tunedeck: exit=0"]
    copy = f"/workspace/tunedeck/{handle.run_id}/log_1.txt"
    assert [line.rpartition(" ")[2] for line in of_node(1, texts(entries))] == [copy]


@pytest.mark.slow
async def test_the_exit_code_is_that_of_the_node_that_failed(place: RunAIPlace) -> None:
    plan = place.plan('[ "$NODE_RANK" = 0 ] && exit 143; exit 7', launch=of_nodes(2))
    backend, handle = await submit(place, plan)
    await lines_of(backend, handle)
    status = await backend.status(handle)
    assert (status.state, status.exit_code) == (RunState.FAILED, 7)


async def test_a_cut_stream_goes_on_where_it_was(place: RunAIPlace, runai: FakeRunAI) -> None:
    runai.cuts = [0, 3, 10]
    backend, handle = await submit(place, place.plan("seq 1 40"))
    entries = await lines_of(backend, handle)
    assert texts(entries) == [*map(str, range(1, 41)), "tunedeck: exit=0"]
    for at in (0, 17, 39):
        rest = texts(await lines_of(backend, handle, entries[at].cursor))
        assert rest == texts(entries)[at + 1 :]


async def test_a_token_that_expires_in_mid_stream_is_renewed(
    place: RunAIPlace, runai: FakeRunAI, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    plan = place.plan(f'echo first; while [ ! -e "{go}" ]; do sleep 0.1; done; echo second')
    backend, handle = await submit(place, plan)
    found = []
    async with aclosing(backend.logs(handle, None, follow=True)) as lines:
        async for entry in lines:
            found.append(entry)
            if entry.line == b"first":
                runai.expire()
                go.touch()
    assert texts(found) == ["first", "second", "tunedeck: exit=0"]


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(
    place: RunAIPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, handle = await submit(place, place.plan("echo private"))
    monkeypatch.delenv("SSL_CERT_FILE")
    http.tls.cache_clear()
    with pytest.raises(AuthenticationError, match="not trusted") as refused:
        await lines_of(backend, handle)
    assert "SSL_CERT_FILE" in refused.value.fix


async def test_where_the_cluster_cannot_be_reached_the_copy_is_named(
    place: RunAIPlace, runai: FakeRunAI
) -> None:
    backend, handle = await submit(place, place.plan("echo kept"))
    assert texts(await lines_of(backend, handle)) == ["kept", "tunedeck: exit=0"]
    copy = runai.volume(CLAIM) / "tunedeck" / handle.run_id / "log_0.txt"
    first, rest = copy.read_text().split("\n", 1)
    assert first.startswith("tunedeck: log of node 0, begun ")
    assert rest == "kept\ntunedeck: exit=0\n"
    runai.domain = "127.0.0.1:1"
    with pytest.raises(ReachError) as refused:
        await lines_of(backend, handle)
    assert f"/workspace/tunedeck/{handle.run_id}/log_0.txt" in refused.value.fix


async def test_launched_from_the_cluster_the_copy_is_read(
    place: RunAIPlace, runai: FakeRunAI, tmp_path: Path
) -> None:
    volume = runai.volume(CLAIM)
    place.values |= {
        "launched_from_cluster": True,
        "pvc_nemo_run_dir": f"{volume}/tunedeck",
        "pvcs": [{"path": str(volume), "existingPvc": True, "claimName": CLAIM}],
    }
    runai.domain = "127.0.0.1:1"
    plan = place.plan("seq 1 5; exit 4")
    backend, handle = await submit(place, plan)
    entries = await lines_of(backend, handle)
    assert texts(entries) == ["1", "2", "3", "4", "5", "tunedeck: exit=4"]
    assert texts(await lines_of(backend, handle, entries[3].cursor)) == ["5", "tunedeck: exit=4"]
    assert (await backend.status(handle)).exit_code == 4
    assert stat.S_ISREG((volume / "tunedeck" / handle.run_id / "log_0.txt").stat().st_mode)


async def test_logs_come_by_kubernetes_where_the_profile_names_it(
    place: RunAIPlace, runai: FakeRunAI
) -> None:
    place.values["kube_apiserver_url"] = runai.kube_url
    runai.domain = "127.0.0.1:1"
    runai.fault("GET", "/log$", cut_after=8)
    backend, handle = await submit(place, place.plan("seq 1 9"))
    entries = await lines_of(backend, handle)
    assert texts(entries) == [*map(str, range(1, 10)), "tunedeck: exit=0"]
