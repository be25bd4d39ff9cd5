"""Large latents: a sample is recorded, whole ones lie in files, and what comes out is nearly what whole recordings give."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.full_runs import record_cases, repeats
from otcache_core.errors import OTCacheError
from otcache_core.sampling import patches
from otcache_core.sampling.filed import Files
from otcache_core.sampling.rollout import Counted, Rollouts, record
from otcache_core.sampling.trajectory import Trajectory, TrajectoryStore, load_trajectory

SIGMAS, CASES = linear_sigmas(12, shift=3.0), [1, 2, 3]
PATHS = [(0, 3, 7), (0, 1, 2, 6, 9), (0, 1, 5, 9, 10)]


@pytest.fixture
def sampled(monkeypatch):
    """Latents of the mixture have 768 elements, of which a third is recorded."""
    monkeypatch.setattr(patches, "WHOLE", 512)
    monkeypatch.setattr(patches, "SAMPLE", 256)


def runs_of(generator, cases=CASES):
    return [record(generator, case, SIGMAS) for case in cases]


def test_a_sample_is_recorded_with_the_whole_latents_half_way_and_at_the_end(recording, sampled):
    for case, whole in zip(recording.cases, recording.trajectories, strict=True):
        run = record(recording.generator, case, recording.sigmas)
        assert run.x[0].numel() <= 256 < whole.x[0].numel() and run.nbytes < whole.nbytes / 2
        assert torch.equal(run.final, whole.x[-1]) and torch.equal(run.halfway, whole.x[6])
        assert all(torch.equal(a, run.patches.of(b[None])[0]) for a, b in zip(run.d, whole.d, strict=True))
        assert torch.equal(run.x, run.kept(whole.x)) and run.layout.bands == whole.layout.bands == 2
        assert repeats(recording.generator, case, run) and not repeats(MixtureGenerator(seed=1), case, run)


def test_up_to_the_limit_everything_is_recorded(recording, monkeypatch):
    monkeypatch.setattr(patches, "WHOLE", 768)
    run = record(recording.generator, 1, recording.sigmas)
    assert run.patches is None and torch.equal(run.x, recording.trajectories[0].x)


def test_a_sampled_run_is_read_back(sampled, tmp_path):
    run = record(MixtureGenerator(), 1, SIGMAS)
    run.save(tmp_path / "run")
    again = load_trajectory(tmp_path / "run")
    assert all(torch.equal(getattr(again, name), getattr(run, name)) for name in ("x", "d", "half", "end"))
    assert torch.equal(again.kept(again.end[None]), run.x[-1:]) and np.array_equal(again.sigmas, run.sigmas)


def test_a_run_that_was_recorded_whole_before_is_sampled_when_it_is_read(recording, monkeypatch, tmp_path):
    recording.trajectories[0].save(tmp_path / "1.safetensors")
    monkeypatch.setattr(patches, "WHOLE", 512)
    monkeypatch.setattr(patches, "SAMPLE", 256)
    counted = Counted(recording.generator)
    [found] = record_cases(counted, [1], recording.sigmas, folder=tmp_path)
    fresh = record(recording.generator, 1, recording.sigmas)
    assert counted.evaluations == 1 and found.patches  # the check whether it is this model's
    assert torch.equal(found.x, fresh.x) and torch.equal(found.d, fresh.d) and torch.equal(found.final, fresh.final)


@pytest.mark.parametrize("max_bytes", [0, 2**28])
def test_a_store_holds_no_whole_latents_and_gives_them(sampled, max_bytes):
    run, store = record(MixtureGenerator(), 1, SIGMAS), TrajectoryStore(max_bytes)
    store.append(run)
    [kept] = store
    assert kept.nbytes == run.nbytes - run.half.nbytes - run.end.nbytes and kept.patches.kept.parts == run.patches.kept.parts
    assert not isinstance(kept.half, torch.Tensor) and not isinstance(kept.end, torch.Tensor)
    for name in ("x", "d", "halfway", "final"):
        assert torch.equal(getattr(kept, name), getattr(run, name))
    folder = Path(kept.end._path).parent
    del kept, store
    gc.collect()
    assert not folder.exists()


def test_a_sample_of_another_size_is_recorded_again_with_one_line(sampled, monkeypatch, tmp_path, caplog):
    record_cases(MixtureGenerator(), [1], SIGMAS, folder=tmp_path)
    monkeypatch.setattr(patches, "SAMPLE", 64)
    counted = Counted(MixtureGenerator())
    [found] = record_cases(counted, [1], SIGMAS, folder=tmp_path)
    assert counted.evaluations == 12 and found.x[0].numel() <= 64 and len(caplog.messages) == 1
    assert "is another sample" in caplog.text


def test_a_latent_that_is_not_finite_half_way_is_our_error(sampled):
    run = record(MixtureGenerator(), 1, SIGMAS)
    with pytest.raises(OTCacheError, match="x at step 6 is not finite"):
        Trajectory(SIGMAS, run.x, run.d, None, run.half * torch.nan, run.end)


@pytest.mark.parametrize("path", PATHS)
def test_given_rows_give_the_same_latents_as_whole_recordings(recording, monkeypatch, path):
    rows = Rollouts(recording.generator, recording.cases, recording.trajectories).run(path)[1]
    expected, _ = Rollouts(recording.generator, recording.cases, recording.trajectories).run(path, rows)
    monkeypatch.setattr(patches, "WHOLE", 512)
    monkeypatch.setattr(patches, "SAMPLE", 256)
    ours = Rollouts(recording.generator, recording.cases, runs_of(recording.generator)).run(path, rows)[0]
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)  # one case at a time rounds otherwise than three


def test_weights_of_a_sample_land_nearly_as_well(recording, sampled):
    whole, ours = recording.trajectories, runs_of(recording.generator)
    full = torch.stack([run.final for run in whole])
    for path in PATHS:
        there, here = (Rollouts(recording.generator, recording.cases, runs).run(path)[0] for runs in (whole, ours))
        assert (here - full).norm() < 1.5 * (there - full).norm()


def test_prefixes_are_shared_and_the_recorded_ones_evaluated_once(sampled):
    counted = Counted(MixtureGenerator())
    rollouts = Rollouts(counted, CASES, runs_of(MixtureGenerator()))
    needed = set()
    for path in PATHS:
        rollouts.run(path)
        needed |= {path[: k + 1] for k in range(len(path))}
        assert counted.evaluations == len(needed) * len(CASES)
    assert rollouts.weights(PATHS[0]) == rollouts.run(PATHS[0])[1] and counted.evaluations == len(needed) * len(CASES)


@pytest.mark.parametrize("room", [0, 1, 3])
def test_files_keep_to_their_limit_and_go_with_what_they_belong_to(sampled, monkeypatch, room):
    monkeypatch.setattr("otcache_core.sampling.rollout.FILED", 1)
    one = 2 * 3 * 768 * 8  # latents and evaluations of three cases in float64
    rollouts = Rollouts(MixtureGenerator(), CASES, runs_of(MixtureGenerator()), max_bytes=room * one)
    fresh = Rollouts(MixtureGenerator(), CASES, runs_of(MixtureGenerator()))
    for path in PATHS:
        assert torch.equal(rollouts.run(path)[0], fresh.run(path)[0])
    folder = Path(rollouts._files._folder.name)
    gc.collect()
    # Of each node two files a case, and two older evaluations at most of what went before.
    assert len(list(folder.iterdir())) <= len(CASES) * (2 * max(room, 1) + 2)
    del rollouts
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_filed_tensor_is_read_as_it_was(dtype):
    tensor = torch.randn(3, 4, 5).to(dtype).transpose(0, 1)
    filed = Files().put(tensor)
    assert torch.equal(filed.read(), tensor) and filed.nbytes == tensor.nbytes


def test_a_disk_without_room_is_one_sentence(monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    with pytest.raises(OTCacheError, match="No space left on device; free space, or set TMPDIR"):
        Files().put(torch.zeros(3))
