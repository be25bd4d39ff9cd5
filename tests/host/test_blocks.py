"""Reuse of transformer blocks: whose residuals a skipped step combines, by which weights, and what they may take."""

import logging
from types import SimpleNamespace

import pytest
import torch
from sampling import Cached, ksampler, make_schedule

PROMPT, OTHER = "prompt", "other prompt"


class Passes:
    """Forward passes of the small network through a `BlockReuse`, at a latent and noise level for each step."""

    def __init__(self, host, case, most=3):
        self.module = host.module("nodes.host.blocks")
        self.reuse = self.module.BlockReuse(most)
        self.network, (self.prompt, extra), = case.model.model, case.positive[0]
        self.pooled = extra["pooled_output"]
        self.seen = []

    def at(self, step: int, *conditionings):
        """The denoised latents of `conditionings` at `step`, in one forward pass of the model."""
        count = len(conditionings)
        x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(step)).repeat(count, 1, 1, 1)
        sigma = torch.full((count,), 1 - step / 12)
        options = {"uuids": list(conditionings), "cond_or_uncond": list(range(count)), "sigmas": sigma}
        context = self.prompt.repeat(count, 1, 1)
        with torch.inference_mode():
            return self.reuse.apply_model(self.network._apply_model, x, sigma, None, context, None, options,
                                          y=self.pooled.repeat(count, 1))  # fmt: skip

    def capture(self, step: int, *conditionings):
        self.reuse.capture(step)
        return self.at(step, *conditionings)

    def replay(self, step: int, *conditionings, row):
        """row: the weights, for as many evaluations as there are; `seen` collects the steps of those."""
        self.reuse.replay(step, lambda steps: self.seen.append(steps) or [row[: len(steps)]])
        return self.at(step, *conditionings)


@pytest.fixture
def passes(host, demo_small):
    return Passes(host, demo_small)


def test_an_evaluation_replayed_where_it_was_made_is_itself(passes):
    made = {step: passes.capture(step, PROMPT) for step in (0, 2, 3)}
    for step, row in ((3, [1.0, 0, 0]), (2, [0, 1.0, 0]), (0, [0, 0, 1.0])):
        torch.testing.assert_close(passes.replay(step, PROMPT, row=row), made[step], atol=1e-5, rtol=1e-5)
    assert passes.seen == [(3, 2, 0)] * 3


def test_a_skipped_step_is_the_weighted_sum_of_what_each_evaluation_would_give_now(passes):
    for step in (0, 2, 3):
        passes.capture(step, PROMPT)
    held = [passes.replay(5, PROMPT, row=row) for row in ([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0])]
    assert not torch.allclose(held[0], held[1], atol=1e-2)
    ours = passes.replay(5, PROMPT, row=[1.5, -0.7, 0.2])
    torch.testing.assert_close(ours, 1.5 * held[0] - 0.7 * held[1] + 0.2 * held[2], atol=1e-5, rtol=1e-5)


def test_bands_are_weighted_apart(host):
    weighted = host.module("nodes.host.blocks").weighted
    low_pass = host.module("otcache_core.sampling.layout").low_pass
    x, first, second = torch.randn(3, 2, 4, 9, 8, generator=torch.Generator().manual_seed(1))
    ours = weighted(x, [[1.2, -0.4], [0.5, 0.3]], [lambda: first, lambda: second])
    low, high = (a * (x - first) + b * (x - second) for a, b in ((1.2, -0.4), (0.5, 0.3)))
    torch.testing.assert_close(x - ours, low_pass(low) + high - low_pass(high))
    assert weighted(x, [[1.0, 0.0]] * 2, [lambda: first, None]) is first  # what has no weight is not asked for


def test_the_newest_evaluations_are_kept_and_no_more(passes):
    for step in (0, 1, 2, 5):
        passes.capture(step, PROMPT)
    passes.replay(6, PROMPT, row=[1.0, 0, 0])
    passes.capture(5, PROMPT)  # once more
    passes.replay(6, PROMPT, row=[1.0, 0, 0])
    passes.capture(2, PROMPT)  # back
    passes.replay(6, PROMPT, row=[1.0, 0, 0])
    assert passes.seen == [(5, 2, 1), (5, 2, 1), (2, 1)]


def test_a_step_that_is_not_kept_changes_nothing(passes):
    passes.capture(0, PROMPT)
    passes.reuse.compute()
    passes.at(1, PROMPT)
    passes.replay(2, PROMPT, row=[1.0])
    assert passes.seen == [(0,)] and not passes.reuse.missed


def test_conditionings_of_one_pass_use_what_all_of_them_have(passes):
    passes.capture(0, PROMPT)
    made = passes.capture(3, PROMPT, OTHER)
    ours = passes.replay(3, PROMPT, OTHER, row=[1.0])
    assert passes.seen == [(3,)]
    torch.testing.assert_close(ours, made, atol=1e-5, rtol=1e-5)
    passes.replay(4, PROMPT, row=[1.0, 0.0])
    assert passes.seen[-1] == (3, 0)


def test_a_conditioning_without_residuals_is_computed(passes):
    passes.capture(0, PROMPT)
    passes.replay(1, PROMPT, OTHER, row=[1.0])
    assert passes.reuse.missed and not passes.seen
    passes.replay(2, PROMPT, OTHER, row=[1.0, 0.0])
    assert not passes.reuse.missed and passes.seen == [(1,)]


def test_blocks_that_write_into_what_cannot_be_parted_are_not_reused(host):
    """They give back the tensor that they took; two conditionings' tokens lie in one dimension."""
    capture = host.module("nodes.host.block_passes").Capture({}, 2)
    original = {"original_block": lambda args: {"img": args["img"].add_(1)}}
    with capture:
        capture.block(("double_block", 0), None, {"img": torch.zeros(5, 4)}, original)
    assert "double_block" in capture.finish()


def test_a_replay_that_does_not_come_to_the_blocks_was_answered_by_another(passes):
    made = passes.capture(0, PROMPT)
    passes.network = SimpleNamespace(_apply_model=lambda *args, **kwargs: made)
    assert passes.replay(1, PROMPT, row=[1.0]) is made
    assert passes.reuse.missed and "another cache" in passes.reuse.problem


def test_conditionings_that_are_no_longer_in_use_are_dropped(passes):
    passes.capture(0, PROMPT, OTHER)
    passes.capture(1, PROMPT)
    passes.replay(2, PROMPT, row=[1.0, 0.0])
    assert {key[0] for key in passes.reuse._kept} == {PROMPT}
    passes.reuse.clear()
    assert not passes.reuse._kept


@pytest.mark.parametrize("kind", ["fitted", "linear", "hold"])
def test_a_run_weights_its_last_evaluations_as_the_schedule_does(host, demo_small, monkeypatch, kind):
    asked, runtime = [], host.module("otcache_core.sampling.cached_run").CachedRun
    original = runtime.coefficients
    monkeypatch.setattr(runtime, "coefficients",
                        lambda run, sigma, steps: asked.append((round(12 * (1 - sigma)), steps)) or original(run, sigma, steps))
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4, kind), "blocks")
    ksampler(host, demo_small, cached.model)  # of 12 steps 0, 3, 6 and 9 are computed
    kept = {"fitted": 3, "linear": 2, "hold": 1}[kind]
    assert dict(asked) == {step: tuple(range(step // 3 * 3, -1, -3))[:kept] for step in range(12) if step % 3}


@pytest.mark.parametrize("room", [0, 1, 2])
def test_residuals_that_do_not_fit_are_fewer_and_the_report_says_so(host, demo_small, monkeypatch, caplog, room):
    size = 2 * (16 + 5 + 21) * 32 * 4  # both prompts': a picture and a text by the double blocks, and all of it by the single
    monkeypatch.setattr(host.module("nodes.host.run"), "spare_memory", lambda model, x: size * room + size // 2)
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4, "fitted"), "blocks")
    with caplog.at_level(logging.INFO):
        ours = ksampler(host, demo_small, cached.model)
    report, = cached.reports
    assert (report.residuals.kept, report.residuals.wanted, report.evaluations) == (room + 1, 3, 4) and ours.isfinite().all()
    assert report.residuals.size == size
    words = f"residuals of {room + 1} evaluation{'s' * (room > 0)} take 0.0 MiB"
    assert f"transformer blocks reused, {words}" in report.text
    assert ("since those of 3 would not fit" in report.text) == (room < 2)
    assert words in caplog.text and caplog.text.index(words) < caplog.text.index("model evaluations for")


def test_blocks_are_not_reused_on_several_gpus(host, demo_small):
    """Each GPU's thread would write into the residuals of all."""
    model = demo_small.model.clone()
    model.set_additional_models("multigpu", [demo_small.model.clone()])
    cached = Cached(host, model, make_schedule(host, 12, 4), "blocks")
    ksampler(host, demo_small, cached.model)
    report, = cached.reports
    assert (report.level, report.evaluations) == ("output", 4) and "several GPUs" in report.level_reason


def test_what_is_free_is_what_the_next_pass_does_not_need(host, demo_small, monkeypatch):
    import comfy.model_management as management

    run_module, x = host.module("nodes.host.run"), torch.zeros(1, 16, 8, 8)
    monkeypatch.setattr(management, "get_free_memory", lambda device: 10**9)
    needed = demo_small.model.model.memory_required([2, 16, 8, 8])
    assert run_module.spare_memory(demo_small.model.model, x) == pytest.approx(10**9 - needed, abs=1)


@pytest.mark.parametrize("spare,kept", [(-5, 1), (9, 1), (10, 2), (19, 2), (20, 3), (99, 3)])
def test_evaluations_that_fit(host, spare, kept):
    fitting = host.module("nodes.host.blocks").evaluations_that_fit
    assert fitting(10, spare, 3) == kept and fitting(0, spare, 3) == 3
