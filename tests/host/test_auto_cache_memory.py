"""No tensor of a run that teaches survives it, however it ends."""

import gc
import weakref

import pytest
import torch
from learning import STEPS, Auto, run
from sampling import forwards, ksampler


class Watch:
    """Weak references to every tensor that recording and rehearsing keep."""

    def __init__(self, host, monkeypatch):
        self.refs = []
        rehearsal = host.module("otcache_core.sampling.rehearsal")
        patches = host.module("otcache_core.sampling.patches").Patches
        of = patches.of

        def of_watched(one, latents):
            kept = of(one, latents)
            self.refs.append(weakref.ref(kept))
            return kept

        monkeypatch.setattr(patches, "of", of_watched)
        for cls in (rehearsal.Recorder, rehearsal.Rehearsal):
            observe = cls.observe

            def observe_watched(one, step, d, x=None, observe=observe):
                self.refs += [weakref.ref(d), weakref.ref(x)]
                observe(one, step, d, x)

            monkeypatch.setattr(cls, "observe", observe_watched)
        evaluated = rehearsal.Recorder.evaluated

        def evaluated_watched(one, step, x, denoised, sigma):
            self.refs += [weakref.ref(x), weakref.ref(denoised)]
            evaluated(one, step, x, denoised, sigma)

        monkeypatch.setattr(rehearsal.Recorder, "evaluated", evaluated_watched)

    def alive(self):
        return sum(ref() is not None for ref in self.refs)


@pytest.mark.parametrize("ending", ["success", "exception", "interrupt"])
@pytest.mark.parametrize("at", [7, STEPS + 3])
def test_a_lesson_frees_its_tensors_and_leaves_the_model_as_it_was(host, demo, learnt, monkeypatch, ending, at):
    import comfy.model_management as management

    def act(count):
        alive.append(watch.alive())
        if count == at and ending == "exception":
            raise MemoryError("out of memory, say")
        if count == at and ending == "interrupt":
            management.interrupt_current_processing(True)

    before = ksampler(host, demo, steps=STEPS)
    auto = Auto(host, demo.model)
    wrappers, options = str(auto.model.wrappers), str(auto.model.model_options)
    watch, alive = Watch(host, monkeypatch), []
    with forwards(demo.model, act):
        if ending == "success" or (ending == "exception" and at > STEPS):
            ksampler(host, demo, auto.model, steps=STEPS)
        else:
            with pytest.raises(MemoryError if ending == "exception" else management.InterruptProcessingException):
                ksampler(host, demo, auto.model, steps=STEPS)
    assert max(alive) > 0, "the watch saw nothing being kept"
    gc.collect()
    assert watch.alive() == 0
    assert (str(auto.model.wrappers), str(auto.model.model_options)) == (wrappers, options)
    assert torch.equal(ksampler(host, demo, steps=STEPS), before)
    run(host, demo, auto)
    assert watch.refs and watch.alive() == 0


def test_a_lesson_holds_no_tensor_without_collection(host, demo, learnt, monkeypatch):
    """References that run in circles would keep a run's latents on the GPU until Python happens to look for them."""
    watch = Watch(host, monkeypatch)
    gc.collect()
    gc.disable()
    try:
        run(host, demo, Auto(host, demo.model))
        assert watch.refs and watch.alive() == 0
    finally:
        gc.enable()


def test_a_long_run_of_a_large_latent_keeps_little(host, demo, learnt, monkeypatch):
    """A sample of a batch of pictures, not every latent: at most 12 MiB."""
    kept, most = [], []
    patches = host.module("otcache_core.sampling.patches").Patches
    of = patches.of

    def of_watched(one, latents):
        found = of(one, latents)
        kept.append(weakref.ref(found))
        alive = [ref() for ref in kept if ref() is not None]
        most.append(sum(tensor.numel() * tensor.element_size() for tensor in alive))
        return found

    monkeypatch.setattr(patches, "of", of_watched)
    auto = Auto(host, demo.model, speedup=1.0, learn="this run too")
    run(host, demo, auto, cfg=1.0, steps=6, latent_image={"samples": torch.zeros(6, 16, 96, 96)})
    assert "learnt from this run" in auto.report.reason and len(kept) >= 12
    assert 2**20 < max(most) <= 1.1 * 4 * host.module("otcache_core.sampling.rehearsal").ELEMENTS
