"""The drawn data set: reproducible, told apart slot by slot, and kept by the autoencoder."""

import hashlib

import numpy as np
import pytest
import torch

from otcache_core.demo import conditioning
from otcache_core.demo.autoencoder import LinearAutoencoder
from otcache_core.demo.scenes import SLOTS, Scene, caption, draw, sample_scene
from otcache_core.demo.stored import VAE_FILE, WEIGHTS


def some(n: int, seed: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng) for _ in range(n)]


def test_drawing_is_reproducible_and_varied():
    scenes = some(4, 0)
    first = draw(scenes, rng=np.random.default_rng(1))
    assert first.shape == (4, 3, 64, 64) and first.dtype == torch.float32
    assert first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, draw(scenes, rng=np.random.default_rng(1)))
    assert not torch.equal(first, draw(scenes, rng=np.random.default_rng(2)))
    assert torch.equal(draw(scenes), draw(scenes))


def test_a_scene_does_not_depend_on_its_batch():
    scenes = some(5, 3)
    assert torch.equal(draw(scenes)[2:3], draw(scenes[2:3]))


@pytest.mark.parametrize("slot", SLOTS)
def test_every_value_of_a_slot_shows(slot):
    scenes = [Scene(**{slot: value}) for value in SLOTS[slot]]
    pictures = draw(scenes).flatten(1)
    gaps = torch.cdist(pictures, pictures) + 1e9 * torch.eye(len(scenes))
    assert gaps.min() > 1.5  # root of the summed squares: some 30 pixels that clearly differ
    assert len({caption(scene) for scene in scenes}) == len(scenes)


def test_pictures_scale():
    small, large = draw([Scene()], 64), draw([Scene()], 256)
    assert (torch.nn.functional.avg_pool2d(large, 4) - small).abs().mean() < 0.02


def test_colours_are_where_they_should_be():
    picture = draw([Scene(house="red", house_position="left", shape_colour="blue", shape="square")])[0]
    assert picture[:, 49, 14].argmax() == 0
    assert picture[:, 25, 32].argmax() == 2


def test_wrong_values_are_named():
    with pytest.raises(ValueError, match="house: 'pink' is not one of red"):
        Scene(house="pink")
    with pytest.raises(ValueError, match="no scenes"):
        draw([])


def test_caption_reads_well():
    assert caption(Scene(sky="overcast", shape_colour="orange", trees="none")) == (
        "A red house on the left of a green meadow with no leafy trees, under an overcast sky with the sun "
        "on the right and one cloud; an orange heart floats in the air."
    )


def test_conditioning_is_the_same_everywhere():
    """The trained weights know these very vectors."""
    scenes = some(64, 11)
    context, pooled = conditioning.encode(scenes)
    assert context.shape == (64, 11, 64) and pooled.shape == (64, 64)
    assert set(context.unique().tolist()) == {-1.0, 1.0}
    assert torch.allclose(pooled, context.sum(1) / 11**0.5)
    everything = [Scene(**{slot: value}) for slot, values in SLOTS.items() for value in values]
    digest = hashlib.sha256(conditioning.encode(everything)[0].to(torch.int8).numpy().tobytes()).hexdigest()
    assert digest.startswith("4abca0b422a5826f")
    tokens = {tuple(token.tolist()) for tokens in conditioning.encode(everything)[0] for token in tokens}
    assert len(tokens) == sum(len(values) for values in SLOTS.values())
    null_context, null_pooled = conditioning.encode_null(2)
    assert null_context.shape == (2, 11, 64) and not null_context.any() and not null_pooled.any()


def test_autoencoder_keeps_unseen_scenes(tmp_path):
    shipped = LinearAutoencoder.load(WEIGHTS / VAE_FILE)
    images = draw(some(128, 77), rng=np.random.default_rng(78))
    latents = shipped.encode(images)
    assert latents.shape == (128, 16, 16, 16)
    assert latents.square().mean() == pytest.approx(1.0, abs=0.1)
    error = (shipped.decode(latents) - images).square().mean((1, 2, 3))
    assert (-10 * error.log10()).mean() >= 32
    assert torch.allclose(shipped.encode(shipped.decode(0.1 * latents)), 0.1 * latents, atol=1e-3)
    fitted = LinearAutoencoder.fit(images)
    fitted.save(tmp_path / "vae.safetensors")
    again = LinearAutoencoder.load(tmp_path / "vae.safetensors")
    assert torch.equal(again.encode(images), fitted.encode(images))
