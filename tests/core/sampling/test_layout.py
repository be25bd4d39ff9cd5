"""The parts and bands of latents."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.inner_products import recorded
from otcache_core.calibration.lessons import lesson
from otcache_core.calibration.pipeline import Settings, calibrate
from otcache_core.calibration.solving import fitted, solve
from otcache_core.errors import OTCacheError
from otcache_core.sampling.cached_run import CachedRun
from otcache_core.sampling.layout import Layout, combine, low_pass
from otcache_core.sampling.patches import Patches
from otcache_core.sampling.predictors import combine_bands, fit_weights, mean_velocity
from otcache_core.sampling.rehearsal import visit
from otcache_core.sampling.rollout import record, sample
from otcache_core.sampling.trajectory import Trajectory, TrajectoryStore, gram_matrices, load_trajectory
from otcache_core.schedules.interpolation import schedule_at
from otcache_core.schedules.retiming import retime
from otcache_core.schedules.schedule import BANDS, make_schedule

SIZES = st.integers(1, 9)
PLANES = st.tuples(st.integers(1, 3), SIZES, SIZES)
VIDEOS = st.tuples(st.integers(1, 3), st.integers(1, 3), SIZES, SIZES)
SOUNDS = st.tuples(st.integers(1, 4), SIZES) | st.tuples(SIZES)
PARTS = st.lists(PLANES | VIDEOS | SOUNDS, min_size=1, max_size=4)
VIDEO_AND_SOUND = Layout([(1, 2, 3, 8, 9), (1, 4, 11)])


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def packed(parts, batch=2, seed=0):
    """(the layout of `parts`, latents of such, the parts of these)."""
    layout = Layout([(batch, *part) for part in parts])
    tensors = [randn(batch, *part, seed=seed + number) for number, part in enumerate(parts)]
    return layout, layout.pack(tensors), tensors


@given(PARTS, st.integers(1, 3))
def test_what_is_packed_is_unpacked_again(parts, batch):
    layout, x, tensors = packed(parts, batch)
    assert all(map(torch.equal, layout.unpack(x), tensors)) and len(layout.parts) == len(parts)
    assert torch.equal(layout.pack(layout.unpack(x)), x) and layout.fits(x)
    assert layout.packed == (len(parts) > 1) and (not layout.packed or x.shape[:2] == (batch, 1))


@given(PARTS)
def test_bands_of_a_packed_latent_are_those_of_its_parts_and_add_up_to_it(parts):
    layout, x, tensors = packed(parts)
    ours = layout.split(x)
    theirs = [band for tensor in tensors for band in Layout([tensor.shape]).split(tensor)]
    assert layout.bands == len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))
    added = iter(ours)
    whole = [next(added) + next(added) if len(part) >= 3 else next(added) for part in parts]
    torch.testing.assert_close(layout.pack(whole), x)


@given(PARTS, st.integers(1, 3), st.integers(0, 99))
def test_every_band_is_combined_by_its_own_row(parts, count, seed):
    layout, _, _ = packed(parts)
    tensors = [packed(parts, seed=10 * number)[1] for number in range(count)]
    rows = np.random.default_rng(seed).normal(size=(layout.bands, count)).tolist()
    left, made = iter(rows), []
    for part in zip(*map(layout.unpack, tensors), strict=True):
        low = next(left)
        if part[0].ndim < 4:
            made.append(combine(low, part))
        else:
            high = next(left)
            made.append(low_pass(combine(low, part)) + combine(high, part) - low_pass(combine(high, part)))
    torch.testing.assert_close(combine_bands(rows, tensors, layout), layout.pack(made))
    torch.testing.assert_close(mean_velocity(sum(rows, []), tensors, layout.bands, layout), layout.pack(made))


@pytest.mark.parametrize("shape", [(2, 4, 16, 17), (1, 3, 5, 8, 8), (1, 1, 2, 3)])
def test_pictures_are_combined_as_before_bit_for_bit(shape):
    tensors, low, high = [randn(*shape, seed=seed).float() for seed in range(3)], (1.4, -0.4, 0.2), (0.9, 0.3, -0.1)
    before = combine(high, tensors) + low_pass(combine([a - b for a, b in zip(low, high, strict=True)], tensors))
    for layout in (None, Layout([shape])):
        assert torch.equal(combine_bands([low, high], tensors, layout), before)
        assert torch.equal(mean_velocity((*low, *high), tensors, 2, layout), before)
        assert torch.equal(combine_bands([low], tensors, layout), combine(low, tensors))


@pytest.mark.parametrize(
    ("layout", "x"),
    [(None, randn(1, 3, 8, 8)), (None, randn(1, 4, 11)), *((VIDEO_AND_SOUND, randn(1, 1, size)) for size in (476, 9))],
)
@pytest.mark.parametrize("bands", [2, 3, 4, 8])
def test_rows_for_other_bands_than_there_are_give_way_to_the_first(layout, x, bands):
    if bands == (layout or Layout([x.shape])).bands and (layout is None or layout.fits(x)):
        return
    rows = [[1.2 * band, -0.2] for band in range(1, bands + 1)]
    assert torch.equal(combine_bands(rows, [x, 2 * x], layout), combine(rows[0], [x, 2 * x]))


def test_many_parts_have_a_band_each_and_too_many_are_one():
    pictures = [(1, 2, 4, 4)] * (BANDS // 2 + 1)
    assert Layout(pictures[:-1]).bands == BANDS and Layout(pictures).bands == len(pictures)
    many = Layout([(1, 2, 4, 4)] * (BANDS + 1))
    x = randn(2, 1, 32 * (BANDS + 1))
    assert many.bands == 1 and not many.packed and many.fits(x) and torch.equal(many.split(x)[0], x)


@pytest.mark.parametrize("shapes", [[], [(1, 4, 0), (1, 2, 4, 4)], [(1, -2, -2), (1, 4)]])
def test_no_parts_and_empty_ones_are_refused(shapes):
    with pytest.raises(ValueError, match="part"):
        Layout(shapes)


def test_parts_count_alike_however_small_they_are():
    layout, x, (video, sound) = packed([(2, 3, 8, 9), (4, 11)], batch=3)
    assert layout.mean_square(x) == pytest.approx(
        sum(float(part.square().sum()) / part[0].numel() for part in (video, sound)) / 2
    )
    assert float(layout.evened(x).square().mean()) == pytest.approx(layout.mean_square(x) / 3)
    assert torch.equal(Layout([video.shape]).evened(video), video)


@pytest.mark.parametrize("most", [1, 40, 200, 460, 10_000])
def test_patches_take_their_share_of_every_part(most):
    parts = [(4, 3, 32, 40), (4, 37), (2, 16, 16)]
    layout, x, tensors = packed(parts)
    patches = Patches(x.shape, most, layout)
    kept = patches.of(x)
    assert patches.kept.fits(kept) and patches.kept.bands == layout.bands == 5 and kept.dtype == torch.float32
    shares = [part[0].numel() for part in patches.kept.unpack(kept)]
    for part, tensor in zip(patches.kept.unpack(kept), tensors, strict=True):
        assert torch.isin(part, tensor.float()).all()
    if most >= 460:
        assert shares[1] == 148  # small ones are kept whole, and what they leave goes to the others
        assert sum(shares) <= most and min(shares) >= 128
    if most == 10_000:
        assert shares[1:] == [148, 512] and shares[0] > 9000
    assert torch.equal(kept, Patches(x.shape, most, layout).of(x))


def test_patches_of_latents_that_do_not_fit_their_layout_are_those_of_plain_ones():
    x = randn(1, 1, 1000)
    patches = Patches(x.shape, 100, VIDEO_AND_SOUND)
    assert torch.equal(patches.of(x), Patches(x.shape, 100).of(x)) and patches.layout.bands == 1


# -- what is built on it ---------------------------------------------------------------------------------------


class VideoAndSound:
    """The exact flow of a mixture for the picture; sound follows a clock of its own."""

    def __init__(self):
        self.pictures = MixtureGenerator()
        self.layout = Layout([(1, *self.pictures.shape), (1, 3, 20)])

    def noise(self, case):
        return self.layout.pack([self.pictures.noise(case)[None], randn(1, 3, 20, seed=case)])[0]

    def velocity(self, x, sigma, cases):
        picture, sound = self.layout.unpack(x)
        return self.layout.pack([self.pictures.velocity(picture, sigma, cases), (sound.sin() + 0.3) * np.cos(9 * sigma)])

    def decode(self, x):
        return self.pictures.decode(self.layout.unpack(x)[0])


SIGMAS = linear_sigmas(12, shift=3.0)


@pytest.fixture(scope="module")
def runs():
    generator = VideoAndSound()
    return generator, [record(generator, case, SIGMAS) for case in (1, 2)]


def test_inner_products_of_packed_latents_are_those_of_their_parts(runs):
    generator, full = runs
    parts = [[Trajectory(SIGMAS, run.layout.unpack(run.x)[i], run.layout.unpack(run.d)[i]) for run in full] for i in (0, 1)]
    grams = gram_matrices(full, 2)
    assert grams.shape == (generator.layout.bands, 2, 12, 12)
    alone = np.concatenate([gram_matrices(one, 2) for one in parts]) / 2
    np.testing.assert_allclose(grams, alone, rtol=1e-12)
    np.testing.assert_allclose(gram_matrices(full), sum(gram_matrices(one) for one in parts) / 2, rtol=1e-12)
    assert recorded(full).bands.shape[0] == generator.layout.bands


def test_visits_and_fits_of_packed_latents_are_those_of_their_parts(runs):
    generator, [one, _] = runs
    layout, end = generator.layout, one.x[9:10]
    basis = [one.d[step : step + 1] for step in (5, 3, 1)]
    seen = visit(basis, one.x[5:6], one.x[6:, None], layout)
    rows = fit_weights(basis, end, np.ones(3) / 3, bands=layout.bands, layout=layout)
    alone, fits = [], []
    for part in range(2):
        cut = [layout.unpack(d)[part] for d in basis]
        later = torch.stack([layout.unpack(x[None])[part] for x in one.x[6:]])
        alone.append(visit(cut, layout.unpack(one.x[5:6])[part], later))
        fits.append(fit_weights(cut, layout.unpack(end)[part], np.ones(3) / 3, bands=2))
    for name in ("gram", "moments", "squares"):
        np.testing.assert_allclose(getattr(seen, name), np.concatenate([getattr(each, name) for each in alone]) / 2, rtol=1e-9)
    np.testing.assert_allclose(rows, np.concatenate(fits))


def test_recordings_keep_their_parts_in_files(runs, tmp_path):
    _, [one, _] = runs
    one.save(tmp_path / "a.safetensors")
    assert load_trajectory(tmp_path / "a.safetensors").layout.parts == one.layout.parts
    spool = TrajectoryStore(max_bytes=0)
    spool.append(one)
    assert spool[0].layout.parts == one.layout.parts
    with pytest.raises(OTCacheError, match="parts"):
        Trajectory(SIGMAS, one.x[..., 1:], one.d[..., 1:], one.layout)


@pytest.mark.parametrize("parts", [3, [], [[]], [["a"]], [[1, 2], [-1]], [[1, 2], [3]], {}, None])
def test_damaged_parts_in_files_are_named(runs, tmp_path, parts):
    from safetensors.torch import save_file

    _, [one, _] = runs
    told = {"sigmas": json.dumps(SIGMAS.tolist()), "parts": json.dumps(parts)}
    save_file({"x": one.x, "d": one.d}, tmp_path / "a.safetensors", metadata=told)
    with pytest.raises(OTCacheError, match=r"a\.safetensors"):
        load_trajectory(tmp_path / "a.safetensors")


def errors(generator, schedule, case, full):
    found = generator.layout.unpack(sample(generator, [case], schedule))
    wanted = generator.layout.unpack(full.x[-1:])
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]


def test_a_lesson_fits_every_part(runs):
    generator, full = runs
    known = lesson(generator, (1, 2), full)
    assert known.bands == generator.layout.bands == len(known.grams)
    schedule = solve([known], SIGMAS, 5)
    assert schedule.predictor.bands == known.bands
    held = schedule.replace(predictor={"kind": "hold"}, weights=None)
    ours, theirs = (errors(generator, each, 1, full[0]) for each in (schedule, held))
    assert ours[0] < theirs[0] and ours[1] < theirs[1]
    pictures = lesson(generator.pictures, (3,), [record(generator.pictures, 3, SIGMAS)])  # of other bands: left out
    assert pictures.bands == 2 and not pictures.fits(known)
    assert fitted([known, pictures], SIGMAS, (0, 2, 5)).weights == fitted([known], SIGMAS, (0, 2, 5)).weights


def test_calibration_fits_every_part(runs):
    generator, full = runs
    settings = Settings(reference_budget=6, anchor_budget=5, budgets=range(5, 7), trials=4)
    found = calibrate(generator, (1, 2), SIGMAS, settings)
    for schedule in (found.reference, *found.schedules.values()):
        assert schedule.predictor.bands == generator.layout.bands
    held = found.reference.replace(predictor={"kind": "hold"}, weights=None)
    ours, theirs = (errors(generator, each, 1, full[0]) for each in (found.reference, held))
    assert ours[0] < theirs[0] and ours[1] < theirs[1]
    for budget in (4, 5, 8):  # below, at and above what was prepared
        between = schedule_at(found.reference, found.anchor, budget)
        assert between.budget == budget and between.predictor.bands == generator.layout.bands
        assert all(map(np.isfinite, errors(generator, retime(between, linear_sigmas(15, 2.0)), 1, full[0])))


@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_runs_of_schedules_for_other_bands_go_by_the_first(runs, bands):
    generator, _ = runs
    rows = [[1.0, 1.2, 0.9][:bands] + [1.0] * (bands - 3), [v for _ in range(bands) for v in (1.3, -0.3)]]
    schedule = make_schedule(
        sigmas=tuple(SIGMAS), compute_steps=(0, 4), weights=rows, predictor={"kind": "fitted", "bands": bands}
    )
    one = schedule.replace(predictor={"kind": "fitted"}, weights=[row[: len(row) // bands] for row in rows])
    ours, theirs = (sample(generator, [1], each) for each in (schedule, one))
    if bands == generator.layout.bands:
        assert not torch.equal(ours, theirs)
    else:
        assert torch.equal(ours, theirs)
    assert CachedRun(schedule, generator.layout).combines == 2


class Sound:
    """Sound alone, [channels, length], as ACE-Step's: one band, without a layout of its own."""

    def noise(self, case):
        return randn(3, 20, seed=case)

    def velocity(self, x, sigma, cases):
        return (x.sin() + 0.3) * np.cos(9 * sigma)


def test_sound_alone_is_one_band():
    generator = Sound()
    full = [record(generator, case, SIGMAS) for case in (1, 2)]
    known = lesson(generator, (1, 2), full)
    assert known.bands == 1 and full[0].layout.bands == 1 and recorded(full).bands.shape[0] == 1
    schedule = solve([known], SIGMAS, 5)
    assert schedule.predictor.bands == 1 and all(len(row) <= 3 for row in schedule.weights)
    held = schedule.replace(predictor={"kind": "hold"}, weights=None)
    ours, theirs = (float((sample(generator, [1], each)[0] - full[0].x[-1]).norm()) for each in (schedule, held))
    assert ours < theirs
