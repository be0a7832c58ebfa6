"""Threads and memory of views on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch

from hsssl_kernels import parallel, spectral_views
from hsssl_kernels.dispatch import compiles_loops
from hsssl_kernels.pages import empty_again
from hsssl_kernels.parallel import run_apart
from hsssl_kernels.spectral_views import blocked, compiled
from view_inputs import FULL, NONE, inputs, views


@pytest.mark.parametrize("path", ["compiled", "blocked"])
@pytest.mark.parametrize("inference", [False, True])
def test_threads_change_nothing_and_leave_the_number_of_threads(
    path: str, inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, threads = inputs(n=33), torch.get_num_threads()
    alone = views(path, patch_size=5, spec=FULL, **data)
    for module in (blocked, compiled):
        monkeypatch.setattr(module, "_PART", 1)
    torch.set_num_threads(3)
    try:
        with torch.inference_mode(inference):
            together = views(path, patch_size=5, spec=FULL, **data)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.skipif(not compiles_loops(), reason="Numba compiles no loops")
@pytest.mark.parametrize("values", [1, 13 * 25 * 4, 1 << 20])
def test_views_are_narrowed_a_few_at_once(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = inputs(n=33)
    wide = views("compiled", patch_size=5, spec=FULL, **data)
    monkeypatch.setattr(compiled, "_NARROWED", values)
    narrow = views("compiled", patch_size=5, spec=FULL, dtype=torch.bfloat16, **data)
    for a, b in zip(wide, narrow, strict=True):
        assert torch.equal(a.bfloat16(), b)


def test_an_error_in_a_thread_is_raised_here_and_no_other_part_begins() -> None:
    before, meeting, done = torch.get_num_threads(), threading.Barrier(2, timeout=60), []

    def part(samples: slice) -> None:
        meeting.wait()  # so that each of two threads has a part
        done.append(torch.get_num_threads())
        raise IndexError(f"part {samples.start}")

    torch.set_num_threads(2)
    try:
        with pytest.raises(IndexError, match=r"part [01]"):
            run_apart(part, [slice(i, i + 1) for i in range(9)], 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert done == [1, 1]


@pytest.mark.parametrize("wrong", ["here", "there"])
def test_the_calling_thread_takes_parts_too_and_an_error_anywhere_is_raised(wrong: str) -> None:
    meeting, done, here = threading.Barrier(2, timeout=60), [], threading.get_ident()

    def part(samples: slice) -> None:
        if samples.start < 2:
            meeting.wait()  # so that each of two threads has one of these
            done.append(mine := threading.get_ident() == here)
            if mine == (wrong == "here"):
                raise IndexError(f"part {samples.start}")

    with pytest.raises(IndexError, match=r"part [01]"):
        run_apart(part, [slice(i, i + 1) for i in range(9)], 2, here_too=True)
    assert sorted(done) == [False, True]


def test_parts_may_have_parts() -> None:
    done = []
    slices = [slice(i, i + 1) for i in range(6)]
    run_apart(
        lambda outer: run_apart(lambda inner: done.append((outer.start, inner.start)), slices, 2), slices, 2
    )
    assert sorted(done) == [(i, j) for i in range(6) for j in range(6)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    script = (
        "import os, torch\n"
        "from hsssl_kernels.parallel import run_apart, run_loop\n"
        "torch.set_num_threads(2)\n"
        "torch.ones(2**20).exp_()\n"  # in OpenMP's threads, where there are any
        "halves = [slice(0, 1), slice(1, 2)]\n"
        "run_apart(lambda part: None, halves, 2)\n"
        "child = os.fork()\n"
        "done = []\n"
        "run_apart(lambda part: done.append(part.start), halves, 2)\n"
        "assert sorted(done) == [0, 1]\n"
        "assert torch.get_num_threads() == 2\n"
        "teams = []\n"
        "run_loop(teams.append, (), 2)\n"
        "assert child or all(team.start == 0 for team in teams), teams\n"
        "os._exit(0) if child == 0 else os._exit(os.waitpid(child, 0)[1] != 0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_loop_runs_in_threads_of_torch_or_in_each_of_some_others(monkeypatch: pytest.MonkeyPatch) -> None:
    teams: list[parallel.Team] = []
    parallel.run_loop(teams.append, (), 1)
    assert teams == [parallel.ALONE]
    teams.clear()
    monkeypatch.setattr(parallel, "_start_of_team", lambda process: 42)
    parallel.run_loop(teams.append, (), 3)
    assert teams == [parallel.Team(42, 3)]
    teams.clear()
    run_apart(lambda part: parallel.run_loop(teams.append, (), 3), [slice(0, 1)] * 2, 2)
    assert teams == [parallel.ALONE] * 2  # threads of the pool have none of their own
    teams.clear()
    monkeypatch.setattr(parallel, "_start_of_team", lambda process: 0)
    parallel.run_loop(teams.append, (), 3)
    assert teams[0] == parallel.ALONE
    assert len(teams) <= 3


@pytest.mark.skipif(sys.platform != "linux", reason="torch has this OpenMP on Linux alone")
@pytest.mark.skipif(not compiles_loops(), reason="Numba compiles no loops")
def test_each_of_torchs_threads_runs_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finds once that no turn is left, so that there are as many turns too many."""
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(compiled, "_PART", 1)
    monkeypatch.setattr(compiled, "run_loop", lambda *said: seen.append(said))
    torch.set_num_threads(3)
    try:
        views("compiled", patch_size=5, spec=FULL, **inputs(n=33))
        ((loop, given, threads),) = seen
        parallel.run_loop(loop, given, threads)
    finally:
        torch.set_num_threads(before)
    assert given[0] == 11 + 3  # turns that were taken: 33 samples, three at once


@pytest.mark.skipif(sys.platform != "linux", reason="memory is kept on Linux alone")
def test_memory_serves_again_only_when_nothing_refers_to_it() -> None:
    shape, cpu = (3, 1 << 20), torch.device("cpu")
    first = empty_again(shape, torch.float32, cpu).fill_(1)
    place = first.data_ptr()
    row, array = first[1], first.numpy()[2]
    del first
    other = empty_again(shape, torch.float32, cpu).fill_(2)
    assert other.data_ptr() != place
    assert (row == 1).all()
    del row
    third = empty_again(shape, torch.float32, cpu).fill_(3)
    assert third.data_ptr() != place
    assert (array == 1).all()
    del array
    again = empty_again((6, 1 << 20), torch.bfloat16, cpu)
    assert again.data_ptr() == place
    assert again.is_contiguous()
    assert (other == 2).all()
    assert (third == 3).all()


def test_large_views_of_one_call_outlive_the_next() -> None:
    data = inputs(20, 20, 200, 400) | {"patch_size": 8, "spec": replace(NONE, gain=0.1), "backend": "torch"}
    pair = spectral_views(**data)
    kept = [view.clone() for view in pair]
    others = spectral_views(**data | {"step": 6})
    assert all(torch.equal(a, b) for a, b in zip(pair, kept, strict=True))
    assert not torch.equal(others[0], kept[0])
    del pair, others
    for a, b in zip(spectral_views(**data), kept, strict=True):
        assert torch.equal(a, b)
