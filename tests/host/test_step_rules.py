"""Ranges, caps and forced steps in real runs, and budgets of runs that do not go all the way."""

import pytest
import torch
from learning import Auto
from sampling import Cached, forwards, ksampler, make_schedule


def skips(report):
    """The longest row of predicted steps."""
    longest = row = 0
    for computed in report.computed:
        row = 0 if computed else row + 1
        longest = max(longest, row)
    return longest


def budgeted(host, **inputs):
    """What OT Budget Interpolate gives between 8 and 4 of 40 even steps, and what its strip is sent."""
    anchor, reference = make_schedule(host, 40, 4), make_schedule(host, 40, 8)
    (schedule, _), shown = host.run_with_ui("OTBudgetInterpolate", anchor=anchor, reference=reference, **inputs)
    return schedule, shown["otcache"][0]


@pytest.mark.parametrize("steps", [40, 20, 12])
def test_range_cap_and_forced_steps_hold_in_the_run(host, demo_small, steps):
    schedule, strip = budgeted(host, budget=4, start_percent=0.25, max_skips=4, forced="+17 -11")
    assert strip["asked"]["forced"] == "+17 -11" and strip["asked"]["start_percent"] == 0.25
    cached = Cached(host, demo_small.model, schedule)
    with forwards(demo_small.model) as made:
        ksampler(host, demo_small, cached.model, steps=steps)
    report = cached.reports[0]
    assert len(made) == report.evaluations == sum(report.computed) and all(report.computed[: steps // 4])
    assert report.computed[round(16 / 40 * steps)] and skips(report) <= 5
    if steps != 12:  # there the computed range ends where step 11 is
        assert not report.computed[10 * steps // 40]
    assert "instead of" in report.text and "by the range, max_skips, forced steps" in report.text


def test_without_rules_nothing_differs(host, demo_small):
    plain, ruled = budgeted(host, budget=6)[0], budgeted(host, budget=6, max_skips=39, end_percent=1.0, forced="+1")[0]
    assert plain.rules is None and plain.speedup is None
    outputs = [ksampler(host, demo_small, Cached(host, demo_small.model, one).model, steps=40) for one in (plain, ruled)]
    assert torch.equal(*outputs)


def test_forced_text_that_is_none_is_refused(host, demo):
    error = host.module("otcache_core.errors").OTCacheError
    for node in (lambda: budgeted(host, forced="3, 7"), lambda: host.run("OTAutoCache", model=demo.model, forced="3, 7")):
        with pytest.raises(error, match="such as \\+3 -7"):
            node()


def test_auto_cache_keeps_range_cap_and_forced_steps(host, demo, learnt):
    rules = host.module("otcache_core.schedules.rules")
    ksampler(host, demo, Auto(host, demo.model).model, steps=20)

    def run(**asked):
        asked["forced"] = rules.forced_steps(asked.get("forced", ""))
        auto = host.module("nodes.host.auto")
        reports = []
        model = auto.with_auto_cache(demo.model, auto.Target(), on_report=reports.append, step_rules=rules.StepRules(**asked))
        samples = ksampler(host, demo, model, steps=20)
        return reports[0], samples

    plain, samples = run()
    same, again = run(forced="+1", max_skips=19)
    assert plain.evaluations == 6 and torch.equal(samples, again) and "instead" not in same.text
    capped, better = run(max_skips=1)
    assert skips(capped) == 1 and capped.evaluations > 6 and "by max_skips" in capped.text
    full = ksampler(host, demo, steps=20)
    assert (better - full).norm() < (samples - full).norm()
    early, _ = run(start_percent=0.5)
    assert early.computed[:10] == (True,) * 10 and "by the range" in early.text
    off = next(step for step, computed in enumerate(plain.computed) if computed and step)
    by_hand, _ = run(forced=f"-{off + 1} +{off + 2} +30")
    assert (by_hand.computed[off], by_hand.computed[off + 1]) == (False, True)
    assert "forced names step 30, but there are 20 steps: left out" in by_hand.text
    everything, untouched = run(start_percent=1.0)
    assert everything.evaluations == 20 and torch.equal(untouched, full)


def test_the_range_of_auto_cache_is_of_sampling_as_elsewhere_in_comfyui(host, demo, learnt):
    """A run at denoise 0.5 begins half-way: up to there lies no step, and 0.75 is the middle of its own."""
    rules, auto = host.module("otcache_core.schedules.rules"), host.module("nodes.host.auto")
    ksampler(host, demo, Auto(host, demo.model).model, steps=20)
    for start, computed in ((0.4, 0), (0.75, 10)):
        reports = []
        model = auto.with_auto_cache(
            demo.model, auto.Target(), on_report=reports.append, step_rules=rules.StepRules(start_percent=start)
        )
        ksampler(host, demo, model, steps=20, denoise=0.5)
        assert reports[0].evaluations < 20 and all(reports[0].computed[:computed])
        assert not all(reports[0].computed[: computed + 3])


def change(host, demo):
    """(distance(samples, full), what the runs begin with): errors are told relative to how far the run moves the picture."""
    picture = {"samples": ksampler(host, demo, steps=20, seed=1)}
    return lambda a, b: float((a - b).norm() / (b - picture["samples"]).norm()), picture


@pytest.mark.parametrize("denoise", [0.4, 0.1])
@pytest.mark.parametrize("name", ["lemica-flux1-dev-10", "meancache-qwen-image-10", "lemica-flux1-dev-20"])
def test_a_budget_keeps_its_share_at_low_denoise(host, demo, learnt, denoise, name):
    """Wan2GP#659: of 20 steps with a preset of 10 of 50, 3 or 2 ran, and so many plain steps came nearer."""
    distance, picture = change(host, demo)
    inputs = {"latent_image": picture, "denoise": denoise, "seed": 5}
    schedule = host.module("otcache_core.schedules.presets").preset(name)
    cached = Cached(host, demo.model, schedule)
    samples, full = (ksampler(host, demo, model, steps=20, **inputs) for model in (cached.model, None))
    report, share = cached.reports[0], 20 * schedule.budget // 50
    assert report.evaluations == share and report.ideal_speedup >= schedule.ideal_speedup
    assert f"{share} of 20 steps run the model: the schedule's share" in report.text
    plain = ksampler(host, demo, steps=share, **inputs)
    # 8 steps of 20 cannot be even, as 8 plain ones are: at denoise 0.1 that costs up to 8 percent.
    assert distance(samples, full) <= distance(plain, full) * (1.1 if 20 % share else 1)


def test_a_learnt_schedule_keeps_its_share_at_low_denoise(host, demo, learnt):
    """Its weights are solved anew for the steps."""
    distance, picture = change(host, demo)
    ksampler(host, demo, Auto(host, demo.model).model, steps=20)
    [title] = host.module("nodes.host.learned").titles()
    anchor, = host.run("OTLoadSchedule", schedule=title)
    schedule, _ = host.run("OTBudgetInterpolate", anchor=anchor, budget=6)
    inputs = {"latent_image": picture, "denoise": 0.4, "seed": 5}
    cached = Cached(host, demo.model, schedule)
    samples, full, plain = (
        ksampler(host, demo, model, steps=steps, **inputs) for model, steps in ((cached.model, 20), (None, 20), (None, 6))
    )
    assert cached.reports[0].evaluations == 6 and "learnt from 1 ordinary run" in cached.reports[0].text
    assert distance(samples, full) <= distance(plain, full)


@pytest.mark.parametrize("denoise", [0.7, 0.4, 0.1])
def test_auto_cache_keeps_its_speedup_at_low_denoise(host, demo, learnt, denoise):
    distance, picture = change(host, demo)
    ksampler(host, demo, Auto(host, demo.model).model, steps=20)
    inputs = {"latent_image": picture, "denoise": denoise, "seed": 5}
    auto = Auto(host, demo.model, speedup=3.0)
    samples, full, plain = (
        ksampler(host, demo, model, steps=steps, **inputs) for model, steps in ((auto.model, 20), (None, 20), (None, 6))
    )
    assert auto.report.evaluations == 6 and not auto.report.reason
    assert distance(samples, full) <= distance(plain, full)


def test_a_speedup_of_budget_interpolate_holds_for_the_runs_own_steps(host, demo_small):
    schedule, _ = budgeted(host, choose="by speed-up", target_speedup=5.0)
    assert schedule.budget == 8
    for steps, evaluations in ((40, 8), (20, 4), (60, 12), (10, 3)):
        cached = Cached(host, demo_small.model, schedule)
        ksampler(host, demo_small, cached.model, steps=steps)
        assert cached.reports[0].evaluations == evaluations
        assert ("speed-up of 5" in cached.reports[0].text) == (steps != 40)


def test_slices_of_a_run_add_up_to_the_budget(host, demo_small):
    """The second begins without noise of its own, and so is no picture made anew."""
    cached = Cached(host, demo_small.model, make_schedule(host, 40, 8))
    first = ksampler(host, demo_small, cached.model, "KSamplerAdvanced", steps=40, add_noise="enable", start_at_step=0,
                     end_at_step=30, return_with_leftover_noise="enable")  # fmt: skip
    ksampler(host, demo_small, cached.model, "KSamplerAdvanced", steps=40, add_noise="disable", start_at_step=30,
             end_at_step=40, return_with_leftover_noise="disable", latent_image={"samples": first})  # fmt: skip
    assert [report.evaluations for report in cached.reports] == [6, 2]
