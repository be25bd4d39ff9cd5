import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otcache_core.sampling.layout import LOW_PASS
from otcache_core.sampling.patches import SIDE, Patches

SHAPES = [
    (2, 7),
    (1, 1000),
    (2, 8, 333),
    (1, 1, 100_003),
    (2, 4, 64, 64),
    (1, 16, 131, 97),
    (1, 128, 40, 24),
    (3, 4, 17, 100),
    (1, 4, 5, 900),
    (1, 8, 1, 4000),
    (1, 16, 5, 34, 61),
    (2, 3, 1, 64, 65),
    (1, 2, 2, 3, 40, 40),
]


def latents(shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def least(shape) -> int:
    """Elements of the smallest square."""
    return shape[1] * min(LOW_PASS, shape[-2]) * min(LOW_PASS, shape[-1]) if len(shape) > 3 else 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("most", [1, 100, 1500, 20_000, 10**7])
def test_no_more_than_asked_is_kept_and_not_needlessly_less(shape, most):
    size = torch.Size(shape)[1:].numel()
    kept = Patches(torch.Size(shape), most).of(latents(shape))
    assert kept.shape[0] == shape[0] and kept.dtype == torch.float32
    count = kept[0].numel()
    assert 0 < count <= max(most, least(shape))
    if size <= most:
        assert kept.shape == shape
    elif len(shape) < 4:
        assert count > min(most, size) / 2
    else:
        assert kept.ndim == 5 and kept.shape[2] == shape[1]
        square = kept[0, 0].numel()
        rows, columns = (side // part for side, part in zip(shape[-2:], kept.shape[-2:], strict=True))
        frames = size // (shape[1] * shape[-2] * shape[-1])
        assert count > most - square or count == square * rows * columns * frames


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_two_runs_of_one_shape_keep_the_same_positions(shape):
    x = latents(shape)
    one, other = (Patches(torch.Size(shape), 2000) for _ in range(2))
    assert torch.equal(one.of(x), other.of(x))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_kept_are_elements_of_the_latent_each_at_most_once_all_channels_alike(shape):
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).view(shape)
    numbers[...] = numbers % 2**24  # whole numbers that float32 can hold
    kept = Patches(torch.Size(shape), 3000).of(numbers)
    for row, latent in zip(kept, numbers, strict=True):
        assert set(row.flatten().tolist()) <= set(latent.flatten().tolist())
        assert row.unique().numel() == row.numel()
    if kept.shape != shape and len(shape) > 3:
        offsets = kept - kept[:, :, :1]
        assert (offsets == offsets[:1, :1, :, :1, :1]).all()


def test_squares_are_cut_whole():
    height, width = torch.meshgrid(torch.arange(50.0), torch.arange(70.0), indexing="ij")
    x = torch.stack([height, width])[None]
    kept = Patches(x.shape, 6 * 2 * SIDE**2).of(x)
    assert kept.shape == (1, 6, 2, SIDE, SIDE)
    down, right = kept[0, :, 0], kept[0, :, 1]
    assert (down[:, 1:] - down[:, :-1] == 1).all() and (right[..., 1:] - right[..., :-1] == 1).all()
    assert (down[:, 0, 0] % SIDE == 0).all() and (right[:, 0, 0] % SIDE == 0).all()


def test_squares_lie_in_several_frames_and_places():
    x = torch.arange(20.0).view(1, 1, 20, 1, 1).expand(1, 1, 20, 64, 64)
    kept = Patches(x.shape, 30 * SIDE**2).of(x)
    assert kept.shape[1] == 30 and len(kept[0, :, 0, 0, 0].unique()) > 8


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_latents_are_copied_and_cut_from_their_graph(shape):
    x = latents(shape).requires_grad_()
    for most in (500, 10**7):
        kept = Patches(torch.Size(shape), most).of(x)
        before = kept.clone()
        with torch.no_grad():
            x += 1
        assert not kept.requires_grad and torch.equal(kept, before)


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple), batch=st.integers(1, 3), most=st.integers(1, 5000)
)
def test_any_shape_keeps_something_of_every_latent_alone(shape, batch, most):
    x = latents((batch, *shape))
    patches = Patches(x.shape, most)
    kept = patches.of(x)
    assert kept.shape[0] == batch and 0 < kept[0].numel() <= max(most, least(x.shape))
    for row in range(batch):
        assert torch.equal(patches.of(x[row : row + 1]), kept[row : row + 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_of_the_latent_does_not_matter(dtype):
    x = latents((1, 4, 48, 48)).to(dtype)
    assert torch.equal(Patches(x.shape, 2000).of(x), Patches(x.shape, 2000).of(x.float()))
