"""Training the demo model: it learns, survives a kill and never leaves half a file."""

import numpy as np
import pytest
import torch

from otcache_core.demo import train
from otcache_core.demo.generator import DemoGenerator


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    monkeypatch.setattr(train, "BATCH", 4)
    monkeypatch.setattr(train, "WARMUP", 10)


@pytest.fixture(scope="module")
def data():
    images, *condition = train.make_data(256, seed=3)
    return train.LinearAutoencoder.fit(images).encode(images), *condition


def test_training_lowers_the_loss(data):
    trainer = train.Trainer(data, seed=1)
    losses = [trainer.train_step(0.0) for _ in range(20)]
    assert losses[0] == pytest.approx(2.0, abs=0.3)  # noise and data both have unit power
    assert np.mean(losses[-5:]) < 0.93 * np.mean(losses[:5])


def test_a_restored_run_is_the_same_run(data, tmp_path):
    first, second = train.Trainer(data, seed=1), train.Trainer(data, seed=2)
    for _ in range(3):
        first.train_step(0.0)
    first.save(tmp_path)
    second.restore(torch.load(tmp_path / train.CHECKPOINT, weights_only=True))
    assert second.train_step(0.0) == first.train_step(0.0)
    assert all(torch.equal(a, b) for a, b in zip(first.ema, second.ema, strict=True))


def test_a_killed_run_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(train, "SAVE_EVERY", 0.0)
    step = train.Trainer.train_step

    def killed(self, progress):
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Trainer, "train_step", killed)
        train.train(tmp_path, 1.0, count=64)
    assert not list(tmp_path.glob("*.tmp"))
    done = torch.load(tmp_path / train.CHECKPOINT, weights_only=True)["clock"][1]
    trainer = train.train(tmp_path, (done + 0.2) / 60, count=64, resume=True)
    assert trainer.step > 3
    assert DemoGenerator(tmp_path).model.img_in.weight.dtype == torch.float32


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    def half(path):
        path.write_text("new, unfin")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        train.atomically(target, half)
    assert target.read_text() == "old"
