"""OT Reference Schedule: record full runs of the user's own model and find the best conservative schedule by graph."""

import shutil

import comfy.samplers
from comfy_api.latest import io

from ..otcache_core.calibration.lessons import lesson
from ..otcache_core.calibration.pipeline import analyse_together, reference_schedule
from ..otcache_core.calibration.recording import Solved
from ..otcache_core.calibration.settings import REFERENCE_BUDGET, Settings
from ..otcache_core.calibration.solving import LEARNT, paths
from ..otcache_core.errors import OTCacheError
from .anchor_search import check_anchor, forget_recordings, own_folder, recordings
from .schema import OTCalibration, OTSchedule, field, outside, schema

TOO_LARGE = "The budget is {}, but the run has {} steps; choose a smaller budget."
TAUGHT = 2  # cases that are rehearsed too, so that other grids profit
STRIPS = (5, 8, 10, 12, 15, 20, 25)


class OTReferenceSchedule(io.ComfyNode):
    """Runs every case in full once, and some short runs; everything else needs no model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTReferenceSchedule",
            display_name="OT Reference Schedule",
            description="Records full runs of your model and finds, by shortest paths in a graph, which steps must run the "
            "model at a conservative budget. Costs about two full runs a case. The first of two stages: OT Anchor "
            "Search continues from the calibration.",
            is_input_list=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            inputs=[
                field(io.Model.Input, "model", tooltip="The model to calibrate, with its LoRAs and patches. A cache on it is "
                      "left out while recording."),
                field(io.Conditioning.Input, "positive", tooltip="A typical prompt. A list or a batch of conditionings counts "
                      "as more cases."),
                field(io.Conditioning.Input, "negative", tooltip="The negative prompt that you will use."),
                field(io.Latent.Input, "latent_image", tooltip="The size that you will use. The schedule works for other "
                      "sizes too; calibrating on small pictures is quicker."),
                field(io.Int.Input, "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False,
                      tooltip="Noise of the first case; further cases count upwards. Another seed means another "
                      "calibration."),
                field(io.Int.Input, "steps", default=50, min=3, max=1000, tooltip="Steps of the full run. Schedules can be "
                      "used with other step counts later."),
                field(io.Float.Input, "cfg", default=4.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="The guidance "
                      "that you will sample with: 1 for models with built-in guidance such as FLUX.1 [dev] and HunyuanVideo, "
                      "3.5 to 4 for most others."),
                field(io.Combo.Input, "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="euler",
                      tooltip="Some samplers use another sigma grid, which is the only thing that this decides: recording "
                      "always integrates with Euler."),
                field(io.Combo.Input, "scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="simple",
                      tooltip="The scheduler that you will sample with."),
                field(io.Float.Input, "denoise", default=1.0, min=0.01, max=1.0, step=0.01, tooltip="1 covers the whole "
                      "trajectory, and is right for image to image too.", advanced=True),
                field(io.Int.Input, "budget", default=REFERENCE_BUDGET, min=2, max=1000, tooltip="Model evaluations of the "
                      "reference: conservative, about 3 in 10 of the steps."),
                field(io.Int.Input, "cases", default=2, min=1, max=64, tooltip="Pictures to calibrate on. One is enough to be "
                      "good, eight are better by 1 to 3 dB on the demo model; the cost grows with it."),
                field(io.Float.Input, "gamma", default=4.0, min=1.0, max=16.0, step=0.5, tooltip="How strongly the graph "
                      "avoids single large errors. 1 adds errors up.", advanced=True),
            ],
            outputs=[
                field(OTSchedule.Output, "reference", display_name="reference", tooltip="The reference schedule; usable as it "
                      "is."),
                field(OTCalibration.Output, "calibration", display_name="calibration", tooltip="The recorded runs, for OT "
                      "Anchor Search. Large ones lie in temporary files."),
                field(io.Image.Output, "plot", display_name="plot", tooltip="The reference and the graph's paths at other "
                      "budgets."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, steps, budget) -> bool | str:
        asked = {"steps": steps[0], "budget": budget[0]}
        if wrong := outside(cls, **asked):
            return wrong
        return None in asked.values() or asked["budget"] < asked["steps"] or TOO_LARGE.format(*reversed(asked.values()))

    @classmethod
    def execute(cls, model, positive, negative, latent_image, seed, steps, cfg, sampler_name, scheduler, denoise, budget,
                cases, gamma) -> io.NodeOutput:  # fmt: skip
        from ..otcache_core.calibration.forecast import observing
        from ..otcache_core.calibration.places import find_place
        from .host import learned
        from .host.calibration import Calibration, run_on_model
        from .host.identity import model_fingerprint
        from .host.known import of_same_runs, origin_at
        from .host.progress import NodeProgress
        from .host.setting import make_setting
        from .host.suitability import EULER, made_on

        progress = NodeProgress("OT Reference Schedule", cls.hidden.unique_id)
        model = model[0]
        setting = make_setting(model, positive, negative[0], latent_image[0], seed[0], cases[0], steps[0], cfg[0],
                               sampler_name[0], scheduler[0], denoise[0])  # fmt: skip
        grid = setting.sigmas.double().numpy()
        key, origin = learned.model_key(model), origin_at(model, EULER, cfg[0])
        if budget[0] >= len(grid) - 1:
            raise OTCacheError(TOO_LARGE.format(budget[0], len(grid) - 1))
        check_anchors(cls.hidden.prompt, cls.hidden.unique_id, budget[0])
        most = max(budget[0], *STRIPS)  # an anchor's budgets lie below; others are solved when they are asked for
        marks = model_fingerprint(model), setting.fingerprint()
        settings = Settings(
            reference_budget=budget[0], gamma=gamma[0], model_key=key, identity="-".join(marks),
            storage=find_place(storage_of(cls.hidden.prompt, cls.hidden.unique_id), own_folder()), **made_on(model),
        )  # fmt: skip
        known = of_same_runs(learned.recall(key), origin, grid, setting.layout)
        folder = recordings(*marks)
        forget_recordings()

        def work(generator):
            progress.follow(generator)
            observed = analyse_together(generator, setting.cases, grid, settings, progress, folder, most)
            # A calibration teaches as ordinary runs do, and begins with what those have taught.
            few = slice(TAUGHT)
            before = generator.evaluations
            progress("lesson", 0, 1)
            taught = lesson(generator, setting.cases[few], observed.trajectories[few], origin, known)
            observed.evaluations["lesson"] = (generator.evaluations - before) / len(setting.cases)
            if known:
                seen = known + taught
                observed.paths[LEARNT] = Solved(lambda budgets: paths(seen, max(budgets)), budget[0])
            progress("lesson", 1, 1)
            return observed, reference_schedule(generator, observed, settings, progress, folder), generator.pace, taught

        stages = observing(len(setting.cases), len(grid) - 1, most, budget[0], min(TAUGHT, len(setting.cases)))
        with progress.work(stages):
            observed, reference, seconds, taught = run_on_model(model, setting, work, tick=progress.tick)
            progress.done(f"{reference.budget} of {reference.steps} evaluations")
        with learned.kept_if_possible():
            learned.remember(key, taught)
        if not searches(cls.hidden.prompt, cls.hidden.unique_id):  # else that removes it: ComfyUI may be killed before it ends
            shutil.rmtree(folder, ignore_errors=True)
        # Whatever sampler gave the grid, weights are fitted to Euler's steps.
        reference = reference.replace(sampler=EULER, scheduler=scheduler[0])
        return io.NodeOutput(reference, Calibration(setting, observed, seconds, *marks), plot(reference, observed))


def searches(prompt: dict | None, node_id: str | None) -> list[dict]:
    """The inputs of every search of the `prompt` that follows the node; neither node sees the other's."""
    found = [node["inputs"] for node in (prompt or {}).values() if node["class_type"] == "OTAnchorSearch"]
    return [inputs for inputs in found if inputs.get("reference") == [node_id, 0]]


def check_anchors(prompt: dict | None, node_id: str | None, budget: int) -> None:
    """Raise `OTCacheError` when a search that follows the node cannot be below its `budget`.

    It would say so only after the runs are recorded.
    """
    for inputs in searches(prompt, node_id):
        check_anchor(inputs.get("budget"), budget)


def storage_of(prompt: dict | None, node_id: str | None) -> str | None:
    """The storage of the search that follows the node, which several machines may share; None where none is written there."""
    written = [inputs.get("storage") for inputs in searches(prompt, node_id)]
    return next((storage for storage in written if isinstance(storage, str) and storage.strip()), None)


def plot(reference, observed):
    """The reference's strip above those of the graph's own paths, an IMAGE."""
    from ..otcache_core.drawing.charts import NODE, schedule_strips
    from .pictures import figure_image

    paths = observed.paths["graph, fitted"]
    budgets = [budget for budget in STRIPS if budget <= reference.steps]
    others = [reference.replace(compute_steps=paths[b], weights=None, predictor={"kind": "hold"}) for b in budgets]
    labels = [f"reference, {reference.budget} of {reference.steps}", *(f"graph at {s.budget}" for s in others)]
    return figure_image(schedule_strips([reference, *others], labels, NODE))
