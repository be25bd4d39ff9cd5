"""OT Auto Cache as people meet it: the first run is core's, bit for bit, and teaches; the next ones make the budget."""

import re

import numpy as np
import pytest
import torch
from learning import STEPS, Auto, distance, lessons, run, teach
from sampling import forwards, ksampler

LEARN = ["euler", "dpmpp_2m", "heun", "uni_pc", "uni_pc_bh2", "res_multistep", "ipndm", "deis"]
NOISY = ["euler_ancestral", "er_sde", "dpmpp_2m_sde", "dpmpp_sde", "lcm"]
NEVER = {"heunpp2": "in their order", "euler_cfg_pp": "unconditional output", "dpm_adaptive": "its own noise levels"}
PICTURE = {"samples": torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(3))}
VARIANTS = {
    "one": {},
    "batch of three": {"latent_image": {"samples": torch.zeros(3, 16, 16, 16)}},
    "cfg 1": {"cfg": 1.0},
    "cfg 7.5": {"cfg": 7.5},
    "img2img": {"denoise": 0.6, "latent_image": PICTURE},
    "beta": {"scheduler": "beta"},
}  # fmt: skip


@pytest.mark.parametrize("sampler", LEARN)
def test_the_first_run_is_cores_and_the_second_makes_the_budget(host, demo, learnt, sampler):
    auto = Auto(host, demo.model)
    with forwards(demo.model) as plain:
        core = ksampler(host, demo, steps=STEPS, sampler_name=sampler)
    first, made = run(host, demo, auto, sampler_name=sampler)
    assert torch.equal(first, core)
    assert auto.report.evaluations == auto.report.asked == len(plain) < made
    more = f"with {made - len(plain)} evaluations more to rehearse"
    assert auto.report.reason == f"learnt from this run, {more}; the next one makes 6 of 20"
    assert len(lessons(learnt)) == 1
    second, made = run(host, demo, auto, sampler_name=sampler)
    twice = len(plain) > STEPS  # samplers that run the model twice a step do so on computed ones; not on the last
    assert made == auto.report.evaluations and made in ((11, 12) if twice else (6,))
    assert not auto.report.reason and distance(second, core) < (0.3 if sampler == "ipndm" else 0.2)
    assert len(lessons(learnt)) == 1
    assert torch.equal(ksampler(host, demo, steps=STEPS, sampler_name=sampler), core)


@pytest.mark.parametrize("sampler", NOISY)
def test_samplers_that_add_noise_teach_what_to_hold(host, demo, learnt, sampler):
    auto = Auto(host, demo.model)
    core = ksampler(host, demo, steps=STEPS, sampler_name=sampler)
    first, _ = run(host, demo, auto, sampler_name=sampler)
    assert torch.equal(first, core) and "learnt from this run" in auto.report.reason and len(lessons(learnt)) == 1
    second, made = run(host, demo, auto, sampler_name=sampler)
    assert made == auto.report.evaluations and "adds noise" in auto.report.note and not auto.report.reason
    assert made == 6 or made in (11, 12) and sampler == "dpmpp_sde"
    assert torch.equal(second, run(host, demo, auto, sampler_name=sampler)[0])
    assert distance(second, core) < 0.9 < distance(torch.randn_like(core), core)


@pytest.mark.parametrize("cfg", [4.0, 7.5])
def test_a_sampler_whose_moves_cancel_at_the_end_teaches(host, demo, learnt, cfg):
    """gradient_estimation's last two do in 20 steps; a rehearsal of 10 divided by their sum and came to nothing."""
    auto, how = Auto(host, demo.model, choose="by budget", budget=10), {"sampler_name": "gradient_estimation", "cfg": cfg}
    core, _ = run(host, demo, auto, **how)
    assert "the next one makes 10 of 20" in auto.report.reason and len(lessons(learnt)) == 1
    learned = host.module("nodes.host.learned")
    [known] = learned.recall(learned.model_key(demo.model))
    assert {len(steps): error < 0.36 * square for steps, (error, square) in known.rehearsals.items()} == {5: True, 10: True}
    assert auto.said[-1] == "learnt"
    second, made = run(host, demo, auto, **how)
    assert made == 10 and not auto.report.reason and distance(second, core) < 0.5


@pytest.mark.parametrize("name", VARIANTS)
def test_any_run_can_be_the_first(host, demo, learnt, name):
    auto, inputs = Auto(host, demo.model), VARIANTS[name]
    first, _ = run(host, demo, auto, **inputs)
    core = ksampler(host, demo, steps=STEPS, **inputs)
    assert torch.equal(first, core) and "learnt from this run" in auto.report.reason
    second, made = run(host, demo, auto, **inputs)
    assert made == auto.report.evaluations == 6 and distance(second, core) < 0.2


@pytest.mark.parametrize("sampler", NEVER)
def test_samplers_that_teach_nothing_say_so(host, demo, learnt, sampler):
    auto = Auto(host, demo.model)
    for _ in range(2):
        samples, made = run(host, demo, auto, sampler_name=sampler)
        assert torch.equal(samples, ksampler(host, demo, steps=STEPS, sampler_name=sampler))
        assert made == auto.report.evaluations == auto.report.asked and NEVER[sampler] in auto.report.reason
    assert not lessons(learnt)


def test_a_sampler_with_churn_never_costs_the_picture(host, demo, learnt):
    import comfy.samplers

    def sample(model):
        torch.manual_seed(4)
        sampler = comfy.samplers.ksampler("euler", {"s_churn": 15.0})
        sigmas, = host.run("BasicScheduler", model=model, scheduler="simple", steps=STEPS, denoise=1.0)
        return host.run("SamplerCustom", model=model, add_noise=True, noise_seed=3, cfg=4.0, positive=demo.positive,
                        negative=demo.negative, sampler=sampler, sigmas=sigmas, latent_image=demo.latent)[0]["samples"]

    auto = Auto(host, demo.model)
    assert torch.equal(sample(auto.model), sample(demo.model))
    assert "learnt from this run" in auto.report.reason and len(lessons(learnt)) == 1
    with forwards(demo.model) as made:
        assert sample(auto.model).isfinite().all()
    assert len(made) == auto.report.evaluations == 6


@pytest.mark.parametrize("value,evaluations", [({"budget": 8}, 8), ({"budget": 1}, 1), ({"speedup": 2.0}, 10),
                                               ({"speedup": 7.0}, 3)])  # fmt: skip
def test_the_budget_is_what_was_asked_for(host, demo, learnt, value, evaluations):
    auto = Auto(host, demo.model, choose="by budget" if "budget" in value else "by speed-up", **value)
    run(host, demo, auto)
    assert auto.report.reason.endswith(f"makes {evaluations} of 20")
    assert run(host, demo, auto)[1] == auto.report.evaluations == evaluations


def test_by_error_more_is_spent_where_less_is_allowed(host, demo, learnt):
    made = []
    for error in (0.3, 0.05, 0.0):
        auto = Auto(host, demo.model, choose="by error", error=error)
        if not made:
            run(host, demo, auto)
            assert "learnt from this run" in auto.report.reason
        samples, count = run(host, demo, auto)
        made.append(count)
    assert made[0] < made[1] <= STEPS and made[2] >= STEPS
    assert torch.equal(samples, ksampler(host, demo, steps=STEPS))
    assert auto.report.reason == "no fewer evaluations are known to keep the error within 0"


def test_the_report_says_what_is_visible_and_what_is_least(host, demo, learnt):
    """At high guidance a third of 20 steps lies about 30 dB from the full run, half of them 40."""
    for cfg, speedup, words in ((8.0, 3.0, " speedup "), (8.0, 2.0, ""), (1.0, 3.0, "")):
        if speedup == 3.0:
            run(host, demo, Auto(host, demo.model, learn="anew"), cfg=cfg)
        auto = Auto(host, demo.model, speedup=speedup)
        run(host, demo, auto, cfg=cfg)
        hint = auto.report.hint
        assert hint.startswith("may differ visibly") and words in hint if words else not hint, (cfg, speedup, hint)
        if words:
            advised, count = re.search(r"set speedup (\S+) \((\d+) of 20\)$", hint).groups()
            follows = Auto(host, demo.model, speedup=float(advised))
            assert float(advised) < speedup and run(host, demo, follows, cfg=cfg)[1] == int(count)
            auto = Auto(host, demo.model, choose="by budget", budget=6)
            run(host, demo, auto, cfg=cfg)
            assert re.search(r"set budget \d+$", auto.report.hint)
    auto = Auto(host, demo.model, speedup=20.0)
    assert run(host, demo, auto)[1] == 3 and auto.report.note.endswith("at least 3 evaluations are made")


BY_BUDGET = {"choose": "by budget"}


@pytest.mark.parametrize("target", [{"speedup": 1.0}, BY_BUDGET | {"budget": STEPS}, BY_BUDGET | {"budget": 1000}])
def test_where_every_step_is_asked_for_nothing_is_learnt_unless_told_to(host, demo, learnt, target):
    core = ksampler(host, demo, steps=STEPS)
    for _ in range(2):
        auto = Auto(host, demo.model, **target)
        samples, made = run(host, demo, auto)
        assert made == STEPS and torch.equal(samples, core) and auto.report.reason == "every step was asked for"
    assert not lessons(learnt)
    auto = Auto(host, demo.model, learn="this run too", **target)
    samples, made = run(host, demo, auto)
    assert made == STEPS and torch.equal(samples, core) and auto.report.reason.startswith("learnt from this run; ")
    assert len(lessons(learnt)) == 1
    # A record without rehearsals does not do for skipping: the first run that would skip is made in full, once.
    fast = Auto(host, demo.model)
    assert run(host, demo, fast)[1] == STEPS + 5 and run(host, demo, fast)[1] == 6


def test_records_without_rehearsals_do_not_bar_a_model_from_learning(host, demo, learnt):
    learned = host.module("nodes.host.learned")
    slow, fast = Auto(host, demo.model, speedup=1.0, learn="this run too"), Auto(host, demo.model)
    for _ in range(learned.ENOUGH + 2):
        run(host, demo, slow)
    assert len(lessons(learnt)) == learned.ENOUGH and "more of them change nothing" in slow.report.reason
    run(host, demo, fast)
    assert "learnt from this run" in fast.report.reason
    assert run(host, demo, fast)[1] == 6


def test_enough_is_enough(host, demo, learnt):
    learned = host.module("nodes.host.learned")
    auto = Auto(host, demo.model, learn="this run too")
    for number in range(learned.ENOUGH + 2):
        samples, made = run(host, demo, auto)
        assert made == STEPS + (5 if number < learned.ENOUGH else 0)
    assert torch.equal(samples, ksampler(host, demo, steps=STEPS))
    assert len(lessons(learnt)) == learned.ENOUGH
    assert auto.report.reason == "8 runs like this one were learnt from, and more of them change nothing"
    [known] = learned.recall(learned.model_key(demo.model))
    assert known.runs == learned.ENOUGH and known.taught


def test_this_run_too_adds_and_anew_forgets(host, demo, learnt):
    learned = host.module("nodes.host.learned")
    teach(host, demo)
    more = Auto(host, demo.model, learn="this run too")
    samples, made = run(host, demo, more, seed=8)
    assert made == STEPS + 5 and torch.equal(samples, ksampler(host, demo, steps=STEPS, seed=8))
    [known] = learned.recall(learned.model_key(demo.model))
    assert known.runs == 2 and len(lessons(learnt)) == 2 and len(known.rehearsals) == 1
    before = lessons(learnt)
    anew = Auto(host, demo.model, learn="anew")
    run(host, demo, anew)
    assert anew.report.reason.endswith("; learn is anew: the next one is made in full, too")
    assert len(lessons(learnt)) == 1 and not set(before) & set(lessons(learnt))
    assert run(host, demo, Auto(host, demo.model))[1] == 6


def test_anew_with_two_samplers_keeps_what_both_teach(host, demo, learnt):
    teach(host, demo)
    anew = Auto(host, demo.model, learn="anew")
    run(host, demo, anew)
    run(host, demo, anew, denoise=0.5, latent_image=PICTURE)
    assert len(lessons(learnt)) == 2
    assert run(host, demo, Auto(host, demo.model))[1] == 6


def test_the_noise_levels_of_the_caller_stay_as_core_leaves_them(host, demo, learnt):
    """uni_pc writes into the sigmas that it is given; a rehearsal must get them as they were."""
    import comfy.samplers

    def sample(model):
        sampler, = host.run("KSamplerSelect", sampler_name="uni_pc")
        sigmas, = host.run("BasicScheduler", model=model, scheduler="simple", steps=STEPS, denoise=1.0)
        latent, *_ = host.run("SamplerCustom", model=model, add_noise=True, noise_seed=3, cfg=4.0, positive=demo.positive,
                              negative=demo.negative, sampler=sampler, sigmas=sigmas, latent_image=demo.latent)  # fmt: skip
        return latent["samples"], sigmas

    auto = Auto(host, demo.model)
    core, ours = sample(demo.model), sample(auto.model)
    assert torch.equal(ours[0], core[0]) and torch.equal(ours[1], core[1])
    learned = host.module("nodes.host.learned")
    [known] = learned.recall(learned.model_key(demo.model))
    grid = comfy.samplers.calculate_sigmas(demo.model.get_model_object("model_sampling"), "simple", STEPS)
    assert np.array_equal(known.sigmas, grid.double().numpy())
    assert max(known.errors.values()) < 0.3  # a rehearsal of another run would be far off


def test_what_comes_after_in_the_workflow_gets_the_same_random_numbers(host, demo, learnt):
    ksampler(host, demo, steps=STEPS)
    expected = torch.rand(3)
    run(host, demo, Auto(host, demo.model))
    assert torch.equal(torch.rand(3), expected)


def test_rehearsals_are_told_on_the_node(host, demo, learnt):
    auto = Auto(host, demo.model)
    run(host, demo, auto, steps=50)
    assert auto.said[:2] == ["rehearsing 1 of 2, 6 evaluations", "rehearsing 2 of 2, 12 evaluations"]
    assert len(auto.said) == 3 and auto.said[-1] == "learnt"  # and nothing claims that they still go on


def test_the_node(host, demo, learnt):
    model, = host.run("OTAutoCache", model=demo.model, speedup=4.0)
    core = ksampler(host, demo, steps=STEPS)
    assert torch.equal(ksampler(host, demo, model, steps=STEPS), core)
    with forwards(demo.model) as made:
        ksampler(host, demo, model, steps=STEPS)
    assert len(made) == 5 and torch.equal(ksampler(host, demo, steps=STEPS), core)


def test_the_later_of_two_caches_counts(host, demo, learnt):
    from sampling import make_schedule

    schedule = make_schedule(host, STEPS, 4)
    teach(host, demo)

    def made(model):
        with forwards(demo.model) as found:
            ksampler(host, demo, model, steps=STEPS)
        return len(found)

    auto, = host.run("OTAutoCache", model=demo.model)
    applied, = host.run("OTApplyCache", model=auto, schedule=schedule)
    assert made(applied) == 4 and made(auto) == 6
    applied, = host.run("OTApplyCache", model=demo.model, schedule=schedule)
    assert made(host.run("OTAutoCache", model=applied)[0]) == 6
    assert made(host.run("OTAutoCache", model=auto, speedup=2.0)[0]) == 10
    assert made(demo.model) == STEPS


@pytest.mark.parametrize("other", ["EasyCache", "LazyCache"])
def test_another_cache_is_refused_in_both_orders(host, demo_small, learnt, other):
    errors = host.module("otcache_core.errors")
    theirs, = host.run(other, model=demo_small.model)
    for model in (Auto(host, theirs).model, host.run(other, model=Auto(host, demo_small.model).model)[0]):
        with pytest.raises(errors.OTCacheError, match="bypass one of them"):
            ksampler(host, demo_small, model)
    assert not lessons(learnt)
