"""What runs keep: a few latents while they last, nothing afterwards, however many there are.

tests/host/test_hooks.py shows the same for runs that end in an exception or an interruption.

Small objects that pile up here are not ours: ComfyUI keeps a LoadedModel for every run of a clone until the clone is freed,
with or without us, and what OT Apply Cache sends to the browser waits for the server's loop, which does not run in tests.
"""

import gc
import logging
import os
import subprocess
import sys

import pytest
import torch
from sampling import Cached, forwards, ksampler, make_schedule

RUNS = 100
SETTLED = 10  # runs after which everything that is made once has been made


def held() -> int:
    """Bytes in all objects that are alive, tensors' storages included and counted once."""
    gc.collect()
    size, storages = 0, {}
    for thing in gc.get_objects():
        size += sys.getsizeof(thing)
        if issubclass(type(thing), torch.Tensor):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return size + sum(storages.values())


@pytest.mark.parametrize("level", ["output", "blocks"])
@pytest.mark.parametrize("kind", ["fitted", "mean_velocity"])
@pytest.mark.skipif("OTCACHE_ALONE" not in os.environ, reason="runs in a process of its own, see the test below")
def test_alone(host, demo_small, level, kind):
    model = Cached(host, demo_small.model, schedule_of(host, 6, kind), level).model
    logging.disable(logging.INFO)  # pytest keeps every record
    try:
        for run in range(RUNS):
            if run == SETTLED:
                before = held()
            ksampler(host, demo_small, model, steps=6)
        after = held()
    finally:
        logging.disable(logging.NOTSET)
    assert after - before < 2**20


def test_a_hundred_runs_do_not_grow():
    """In a process of its own: what other tests left behind is loaded and freed by ComfyUI at times of its choosing."""
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-k", "test_alone"]
    done = subprocess.run(command, env=os.environ | {"OTCACHE_ALONE": "1"}, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("kind,span", [("hold", 0), ("linear", 0), ("quadratic", 0), ("fitted", 0), ("mean_velocity", 4)])
def test_a_run_keeps_at_most_span_and_one_latents(host, demo_small, monkeypatch, kind, span):
    runtime, runs = host.module("otcache_core.sampling.cached_run"), []
    original = runtime.CachedRun.__init__

    def init(run, *args):
        original(run, *args)
        runs.append(run)

    monkeypatch.setattr(runtime.CachedRun, "__init__", init)
    most = []

    def count(_):
        run = runs[-1]
        kept = [d for _, d in run._history] + list(run._log.values()) + [run._slope]
        most.append(len({d.data_ptr() for d in kept if torch.is_tensor(d)}))

    model = Cached(host, demo_small.model, schedule_of(host, 24, kind, span)).model
    history = host.module("otcache_core.schedules.schedule").HISTORY
    with forwards(demo_small.model, count):
        ksampler(host, demo_small, model, steps=24)
    assert 0 < max(most) <= max(span, history) + 1
    count(None)
    assert most[-1] == 0


def schedule_of(host, steps, kind, span=4):
    if kind != "mean_velocity":
        return make_schedule(host, steps, steps // 3, kind)
    library = host.module("otcache_core.schedules.schedule")
    plain = make_schedule(host, steps, steps // 3)
    return plain.replace(predictor=library.Predictor(kind=kind), spans=(span,) * (steps // 3))
