import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from otcache_core import files
from otcache_core.errors import OTCacheError
from otcache_core.sampling.layout import low_pass
from otcache_core.sampling.trajectory import Trajectory, TrajectoryStore, gram_matrices, load_trajectory

SIGMAS = [1.0, 0.7, 0.2, 0.0]


def tensors(seed: int = 0, steps: int = 3, shape=(2, 4, 5), dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(steps + 1, *shape, generator=random).to(dtype), torch.randn(
        steps, *shape, generator=random
    ).to(dtype)


def trajectory(seed: int = 0, dtype=torch.float32) -> Trajectory:
    return Trajectory(SIGMAS, *tensors(seed, dtype=dtype))


def same(a: Trajectory, b: Trajectory) -> bool:
    return (
        np.array_equal(a.sigmas, b.sigmas)
        and a.x.dtype == b.x.dtype
        and torch.equal(a.x, b.x)
        and torch.equal(a.d, b.d)
    )


def one_line(error) -> str:
    assert "\n" not in str(error.value), error.value
    return str(error.value)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("name", "step"), [("x", 0), ("x", 3), ("d", 0), ("d", 2)])
def test_a_value_that_is_not_finite_names_its_tensor_and_step(name, step, bad):
    x, d = tensors()
    (x if name == "x" else d)[step, 1, 2, 3] = bad
    with pytest.raises(OTCacheError, match=f"{name} at step {step} is not finite"):
        Trajectory(SIGMAS, x, d)


def test_the_first_of_several_bad_steps_is_named():
    x, d = tensors()
    x[2:] = torch.nan
    with pytest.raises(OTCacheError, match="x at step 2 "):
        Trajectory(SIGMAS, x, d)


def test_a_failing_evaluation_is_named_rather_than_the_latents_it_spoils():
    x, d = tensors()
    d[1:], x[2:] = torch.nan, torch.nan
    with pytest.raises(OTCacheError, match="d at step 1 "):
        Trajectory(SIGMAS, x, d)


@pytest.mark.parametrize("change", ["short x", "short d", "long d", "other latent", "swapped"])
def test_shapes_that_disagree_are_named(change):
    x, d = tensors()
    x, d = {
        "short x": (x[:-1], d),
        "short d": (x, d[:-1]),
        "long d": (x, torch.cat([d, d])),
        "other latent": (x, d[..., :-1]),
        "swapped": (d, x),
    }[change]
    with pytest.raises(OTCacheError) as error:
        Trajectory(SIGMAS, x, d)
    assert str(tuple(x.shape)) in one_line(error) and str(tuple(d.shape)) in str(error.value)


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([1.0, 0.2, 0.7, 0.0], r"sigmas\[2\] is not below sigmas\[1\]"),
        ([1.0, 0.5, 0.5, 0.0], r"sigmas\[2\] is not below sigmas\[1\]"),
        ([0.0, 0.2, 0.7, 1.0], r"sigmas\[1\] is not below sigmas\[0\]"),
        ([1.0, 0.5, 0.2, -0.1], "negative"),
        ([1.0, float("nan"), 0.2, 0.0], r"sigmas\[1\] is not a finite"),
        ([float("inf"), 0.5, 0.2, 0.0], r"sigmas\[0\] is not a finite"),
        ([[1.0, 0.5, 0.2, 0.0]], "list"),
        ([1.0], "at least two"),
        ([], "at least two"),
    ],
)
def test_a_grid_that_does_not_fall_is_refused(sigmas, message):
    with pytest.raises(OTCacheError, match=message):
        Trajectory(sigmas, *tensors())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_saving_and_loading_keeps_everything(tmp_path, dtype):
    original = trajectory(dtype=dtype)
    original.save(tmp_path / "new folder" / "run.safetensors")
    assert same(load_trajectory(tmp_path / "new folder" / "run.safetensors"), original)
    assert original.nbytes == 7 * 40 * dtype.itemsize and original.steps == 3


def test_views_of_one_buffer_and_strided_tensors_can_be_saved(tmp_path):
    buffer = torch.randn(7, 5, 4, 2).transpose(1, 3)
    original = Trajectory(SIGMAS, buffer[:4], buffer[4:])
    original.save(tmp_path / "run.safetensors")
    assert same(load_trajectory(tmp_path / "run.safetensors"), original)


def test_saving_over_a_trajectory_replaces_it(tmp_path):
    path = tmp_path / "run.safetensors"
    trajectory(0).save(path)
    trajectory(1).save(path)
    assert same(load_trajectory(path), trajectory(1)) and os.listdir(tmp_path) == ["run.safetensors"]


@given(data=st.data())
@example(data=None)
def test_a_truncated_file_is_an_error_at_any_length(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    trajectory().save(folder / "run.safetensors")
    whole = (folder / "run.safetensors").read_bytes()
    length = 0 if data is None else data.draw(st.integers(0, len(whole) - 1))
    (folder / "cut.safetensors").write_bytes(whole[:length])
    with pytest.raises(OTCacheError, match="cut.safetensors") as error:
        load_trajectory(folder / "cut.safetensors")
    one_line(error)


@given(junk=st.binary(max_size=300))
@settings(max_examples=100)
def test_binary_junk_is_an_error(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "junk.safetensors"
    path.write_bytes(junk)
    with pytest.raises(OTCacheError, match="junk.safetensors") as error:
        load_trajectory(path)
    one_line(error)


@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
@settings(max_examples=150)
def test_a_flipped_byte_gives_a_trajectory_or_our_error(tmp_path_factory, place, value):
    folder = tmp_path_factory.mktemp("flip")
    trajectory().save(folder / "run.safetensors")
    data = bytearray((folder / "run.safetensors").read_bytes())
    data[place % min(len(data), 400)] = value  # the header, and the first of the data
    (folder / "run.safetensors").write_bytes(data)
    try:
        load_trajectory(folder / "run.safetensors")
    except OTCacheError as error:
        assert "\n" not in str(error)


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    for path in (tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(OTCacheError, match=path.name):
            load_trajectory(path)


def write(path: Path, sigmas: str | None, x=None, d=None) -> Path:
    default = tensors()
    x, d = default[0] if x is None else x, default[1] if d is None else d
    save_file({"x": x, "d": d}, path, metadata=None if sigmas is None else {"sigmas": sigmas})
    return path


@pytest.mark.parametrize(
    "sigmas",
    [
        None,
        "{",
        "5",
        "null",
        '"abc"',
        '{"a": 1}',
        "[[1], [2, 3]]",
        "[1, NaN, 0.1, 0]",
        "[1, 0]",
        "[0, 1, 2, 3]",
    ],
)
def test_a_file_with_a_bad_grid_is_our_error(tmp_path, sigmas):
    with pytest.raises(OTCacheError) as error:
        load_trajectory(write(tmp_path / "run.safetensors", sigmas))
    one_line(error)


@pytest.mark.parametrize("sigmas", ["[" * 100_000, "9" * 5000, "[1" + "0" * 400 + ", 1, 0.5, 0]"])
def test_a_file_with_a_hostile_grid_is_our_error(tmp_path, sigmas):
    with pytest.raises(OTCacheError, match="run.safetensors"):
        load_trajectory(write(tmp_path / "run.safetensors", sigmas))


def test_latents_of_one_number_are_latents_too(tmp_path):
    path = write(tmp_path / "run.safetensors", "[1, 0.7, 0.2, 0]", torch.rand(4), torch.rand(3))
    assert load_trajectory(path).x.shape == (4,)


def test_bad_content_names_the_file(tmp_path):
    x, _ = tensors()
    with pytest.raises(OTCacheError, match="run.safetensors"):
        load_trajectory(write(tmp_path / "run.safetensors", "[1, 0.7, 0.2, 0]", x=x * torch.nan))


def test_a_file_without_velocities_is_our_error(tmp_path):
    save_file({"x": tensors()[0]}, tmp_path / "run.safetensors", metadata={"sigmas": "[1, 0.7, 0.2, 0]"})
    with pytest.raises(OTCacheError, match="run.safetensors"):
        load_trajectory(tmp_path / "run.safetensors")


@pytest.mark.parametrize("place", ["write", "replace"])
def test_a_failing_write_leaves_the_old_file_and_no_partial_one(tmp_path, monkeypatch, place):
    path = tmp_path / "run.safetensors"
    trajectory(0).save(path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    if place == "write":
        monkeypatch.setattr("otcache_core.sampling.trajectory.save_file", lambda *_, **__: fail())
    else:
        monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises((OSError, OTCacheError)):
        trajectory(1).save(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["run.safetensors"] and same(load_trajectory(path), trajectory(0))


def test_an_interrupt_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.written_whole(tmp_path / "run.bin") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def files_of(spool: TrajectoryStore) -> list[Path]:
    return sorted(Path(spool._folder.name).iterdir()) if spool._folder else []


def in_memory(spool: TrajectoryStore) -> int:
    """Bytes of the trajectories whose data are no file's."""
    return sum(tensor.nbytes for run in spool for tensor in (run.x, run.d) if not is_mapped(tensor))


def is_mapped(tensor) -> bool:
    """Whether the tensor's memory is a mapping of a safetensors file (Linux only; elsewhere nothing is known)."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux tells what memory is mapped from")
    for line in maps.read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        low, high = (int(end, 16) for end in span.split("-"))
        if low <= tensor.data_ptr() < high:
            return name.endswith(".safetensors")
    return False


@pytest.mark.parametrize("room", [0, 1, 2, 10])
def test_spool_keeps_to_its_limit_and_reads_back_equal_data(room):
    runs = [trajectory(seed) for seed in range(5)]
    spool = TrajectoryStore(max_bytes=room * runs[0].nbytes + runs[0].nbytes // 2)
    for run in runs:
        spool.append(run)
        assert in_memory(spool) <= spool.max_bytes
    assert len(spool) == 5 and len(files_of(spool)) == max(5 - room, 0)
    assert all(same(ours, run) for ours, run in zip(spool, runs, strict=True))
    assert all(same(ours, run) for ours, run in zip(reversed(spool), reversed(runs), strict=True))
    assert same(spool[-1], runs[-1])
    with pytest.raises(IndexError):
        spool[5]


def test_spool_uses_room_left_by_a_large_run_for_a_small_one():
    large, small = trajectory(0), Trajectory([1.0, 0.0], *tensors(1, steps=1))
    spool = TrajectoryStore(max_bytes=large.nbytes - 1)
    spool.append(large)
    spool.append(small)
    assert len(files_of(spool)) == 1 and spool[1] is small and same(spool[0], large)


def test_spool_removes_its_folder():
    spool = TrajectoryStore(max_bytes=0)
    spool.append(trajectory())
    folder = Path(spool._folder.name)
    kept = spool[0]
    assert folder.exists()
    del spool
    gc.collect()
    assert not folder.exists()
    if os.name != "nt":
        assert same(kept, trajectory())  # what was handed out stays readable


def test_spools_do_not_share_files():
    first, second = TrajectoryStore(0), TrajectoryStore(0)
    first.append(trajectory(1))
    second.append(trajectory(2))
    assert same(first[0], trajectory(1)) and same(second[0], trajectory(2))


def test_writing_into_a_spooled_run_does_not_change_the_file():
    spool = TrajectoryStore(0)
    spool.append(trajectory())
    spool[0].x.zero_()
    assert same(load_trajectory(files_of(spool)[0]), trajectory())


@pytest.mark.parametrize("room", [0, 2])
def test_a_slice_of_a_spool_holds_trajectories(room):
    runs = [trajectory(seed) for seed in range(4)]
    spool = TrajectoryStore(max_bytes=room * runs[0].nbytes)
    for run in runs:
        spool.append(run)
    assert all(isinstance(ours, Trajectory) for ours in spool[1:])
    assert all(same(ours, run) for ours, run in zip(spool[1:], runs[1:], strict=True))


def test_gram_matrices_are_mean_inner_products():
    runs = [trajectory(seed) for seed in range(2)]
    grams = gram_matrices(runs)
    assert grams.shape == (1, 2, 3, 3) and grams.dtype == np.float64
    for gram, run in zip(grams[0], runs, strict=True):
        for i in range(3):
            for j in range(3):
                assert gram[i, j] == pytest.approx(
                    float((run.d[i].double() * run.d[j].double()).mean()), rel=1e-12
                )
        assert np.linalg.eigvalsh(gram).min() > 0


def test_gram_matrices_of_two_bands_make_up_the_whole_with_their_cross_terms():
    runs = [trajectory(seed) for seed in range(2)]
    bands = gram_matrices(runs, bands=2)
    assert bands.shape == (2, 2, 3, 3)
    for case, run in enumerate(runs):
        d = run.d.double()
        low = low_pass(d)
        flat_low, flat_high = low.flatten(1), (d - low).flatten(1)
        cross = (flat_low @ flat_high.T / flat_low.shape[1]).numpy()
        assert np.allclose(bands[0, case], (flat_low @ flat_low.T / flat_low.shape[1]).numpy(), rtol=1e-12)
        assert np.allclose(bands[:, case].sum(0) + cross + cross.T, gram_matrices(runs)[0, case], atol=1e-12)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made, in bytes."""

    nbytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **kwargs or {})
        before = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        for one in made if isinstance(made, (list, tuple)) else [made]:
            if one.untyped_storage().data_ptr() not in before:  # no view
                self.nbytes = max(self.nbytes, one.nbytes)
        return made


@pytest.mark.parametrize("bands", [1, 2])
@pytest.mark.parametrize("shape", [(8, 16, 16), (2, 4, 16, 16), (2048,)])
def test_gram_matrices_take_a_piece_at_a_time_and_give_the_same(monkeypatch, shape, bands):
    d = torch.randn(6, *shape, generator=torch.manual_seed(0))
    run = Trajectory(np.linspace(1, 0, 7), torch.zeros(7, *shape), d)
    whole = gram_matrices([run], bands)
    monkeypatch.setattr("otcache_core.sampling.trajectory.AT_ONCE", 2 * 256 * 6)
    with Largest() as largest:
        pieces = gram_matrices([run], bands)
    assert np.allclose(pieces, whole, rtol=1e-12, atol=1e-14)
    assert largest.nbytes <= 2 * 256 * 6 * 8  # one piece in double precision


def test_gram_matrices_need_cases_on_one_grid():
    with pytest.raises(OTCacheError, match="calibration set is empty"):
        gram_matrices([])
    with pytest.raises(OTCacheError, match="different sigma grids"):
        gram_matrices([trajectory(), Trajectory([1.0, 0.6, 0.2, 0.0], *tensors())])
    with pytest.raises(OTCacheError, match="different sigma grids"):
        gram_matrices([trajectory(), Trajectory([1.0, 0.0], *tensors(steps=1))])
