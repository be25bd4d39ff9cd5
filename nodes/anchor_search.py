"""OT Anchor Search: find the schedule of an extreme budget by its pictures, and prepare every budget up to the reference."""

import logging
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..otcache_core.calibration.metrics import DEFAULT, DISTANCES, LATENT, prepare_lpips
from ..otcache_core.calibration.pipeline import prepare
from ..otcache_core.calibration.settings import ANCHOR_BUDGET, TRIALS, Settings
from ..otcache_core.errors import OTCacheError
from .schema import OTCalibration, OTSchedule, field, schema

EXPOSED = ("the storage holds a password, which is saved in this workflow and in every picture made with it; write it into the "
           "environment variable OTCACHE_STORAGE, and env:OTCACHE_STORAGE into the node")  # fmt: skip


class OTAnchorSearch(io.ComfyNode):
    """The second stage: its schedule carries those of all budgets, so that the slider costs nothing."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTAnchorSearch",
            display_name="OT Anchor Search",
            description="Searches the steps of a very small budget with the finished pictures as judge (Optuna), then "
            "prepares every budget between it and the reference. Says how long it will take, can be cancelled at any time, "
            "and goes on where it stopped when it is queued again.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                field(io.Model.Input, "model", tooltip="The model that was recorded."),
                field(OTCalibration.Input, "calibration", tooltip="From OT Reference Schedule."),
                field(OTSchedule.Input, "reference", tooltip="From OT Reference Schedule."),
                field(io.Int.Input, "budget", default=ANCHOR_BUDGET, min=1, max=1000, tooltip="Model evaluations of the "
                      "anchor, the smallest budget of the slider: about 1 in 6 of the steps."),
                field(io.Int.Input, "trials", default=TRIALS, min=1, max=100000, tooltip="Schedules that the search tries. "
                      "It starts from good ones and drops poor ones early."),
                field(io.Combo.Input, "metric", options=list(DISTANCES), default=DEFAULT, tooltip="How far a cached picture "
                      "is from the full one. lpips needs its network: see download.", advanced=True),
                field(io.Int.Input, "seed", default=0, min=0, max=2**31 - 1, control_after_generate=False,
                      tooltip="Of the search.", advanced=True),
                field(io.Vae.Input, "vae", optional=True, tooltip="Decodes the pictures that are judged: of a long video a few "
                      "frames from its beginning, middle and end. Without one the latents themselves are judged, which is "
                      "quicker and sees less."),
                field(io.String.Input, "storage", default="", optional=True, tooltip="Where trials are kept: empty for a file "
                      "in ComfyUI's user folder, else an SQLite file, or for several machines journal:FILE on a shared disk, "
                      "grpc://host:port or a database URL. A URL with a password is saved in workflows and pictures: write "
                      "env:OTCACHE_STORAGE (an environment variable) or file:NAME (a file in user/otcache) instead.",
                      advanced=True),
                field(io.Boolean.Input, "download", default=False, optional=True, tooltip="Whether lpips may download its "
                      "network (about 240 MB, once) into models/lpips where no model folder has it.", advanced=True),
            ],
            outputs=[
                field(OTSchedule.Output, "anchor", display_name="anchor", tooltip="The anchor, with the schedules of all "
                      "budgets up to the reference. OT Save Schedule keeps it all in one file."),
                field(io.Image.Output, "plot", display_name="plot", tooltip="Every prepared schedule, and the error against "
                      "the budget."),
                field(io.String.Output, "summary", display_name="summary", tooltip="What was found and what it cost."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, storage="") -> bool | str:
        # A name that leads to nothing is told before the model is recorded, which takes minutes.
        from ..otcache_core.calibration.places import find_place

        try:
            find_place(storage, own_folder())
        except OTCacheError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model, calibration, reference, budget, trials, metric, seed, storage="", download=False,
                vae=None) -> io.NodeOutput:  # fmt: skip
        from ..otcache_core.calibration.forecast import preparing
        from ..otcache_core.calibration.places import find_place, has_password
        from ..otcache_core.calibration.storages import open_storage
        from .host import learned
        from .host.calibration import run_on_model
        from .host.identity import fingerprint, model_fingerprint
        from .host.known import origin_at
        from .host.lpips_folders import lpips_folders
        from .host.progress import NodeProgress
        from .host.suitability import EULER, made_on

        progress = NodeProgress("OT Anchor Search", cls.hidden.unique_id)
        setting, observed = calibration.setting, calibration.observed
        check_anchor(budget, reference.budget)
        own = own_folder()
        if not storage.strip():
            own.mkdir(parents=True, exist_ok=True)
            storage = str(own / "searches.db")
        exposed = has_password(storage)
        if exposed:
            logging.warning("OTCache: OT Anchor Search: %s", EXPOSED)
        place = find_place(storage, own)
        open_storage(place)
        key = learned.model_key(model)
        metric = metric if vae is not None else LATENT
        settings = Settings(
            budgets=range(budget, reference.budget + 1), reference_budget=reference.budget, anchor_budget=budget,
            trials=trials, metric=metric, seed=seed, storage=place, memory=str(own), model_key=key,
            **made_on(model),
            identity=f"{calibration.model}-{calibration.conditions}-{fingerprint(vae) if vae is not None else LATENT}",
        )  # fmt: skip
        if metric == "lpips":
            prepare_lpips(lpips_folders(), download)
        cases, steps = len(setting.cases), len(observed.sigmas) - 1
        settings.check(steps)  # what does not fit or is missing is told before the model is loaded
        decoded = settings.pictures(cases)
        progress.say(f"at most {decoded} decoded pictures" if decoded else "judged by latents")
        mark = model_fingerprint(model)

        def work(generator):
            progress.follow(generator, calibration.seconds)
            calibration.check(generator, mark)
            return prepare(generator, observed, reference, settings, progress, progress.watch)

        with progress.work(preparing(cases, steps, settings)):
            found = run_on_model(model, setting, work, vae, progress.tick)
            progress.done(f"{budget} to {reference.budget} evaluations" + (f"; but {EXPOSED}" if exposed else ""))
        anchor = found.anchor.replace(sampler=reference.sampler, scheduler=reference.scheduler)
        with learned.kept_if_possible():
            learned.remember_anchor(key, origin_at(model, EULER, setting.cfg), anchor)
        told = summary(found, cases) + (f"\nWarning: {EXPOSED}." if exposed else "")
        return io.NodeOutput(anchor, plot(anchor, reference), told)


def check_anchor(budget, reference: int) -> None:
    """Raise `OTCacheError` unless the anchor's `budget`, where it is known yet, is below the `reference`'s."""
    if isinstance(budget, int) and budget >= reference:
        raise OTCacheError(f"The anchor's budget {budget} must be below the reference's {reference}; lower it.")


def own_folder() -> Path:
    """Where searches and measurements are kept, and files that `file:` names."""
    return Path(folder_paths.get_user_directory(), "otcache")


def plot(anchor, reference):
    """Strips of all prepared schedules above the error against the budget, an IMAGE."""
    import numpy as np

    from ..otcache_core.drawing.charts import NODE, error_against_budget, schedule_strips
    from ..otcache_core.drawing.style import to_image
    from .pictures import array_image

    prepared = anchor.prepared
    strips = to_image(schedule_strips(prepared, [f"budget {s.budget}" for s in prepared], NODE))
    errors = to_image(error_against_budget({"prepared": {s.budget: s.score for s in prepared}}, anchor.metric, NODE))
    width = max(strips.shape[1], errors.shape[1])
    padded = [np.pad(a[..., :3], ((0, 0), (0, width - a.shape[1]), (0, 0)), constant_values=255) for a in (strips, errors)]
    return array_image(np.concatenate(padded))


def decibels(schedule) -> str:
    """The PSNR that was measured with a schedule, where it was."""
    return "" if schedule.psnr is None else f"{schedule.psnr:.1f} dB"


def summary(found, cases: int) -> str:
    """What was found and spent, as a table in plain text."""
    from .host.run_report import counted

    anchor = found.anchor
    spent, judged = sum(found.evaluations.values()), counted(cases, "case")
    lines = [
        f"Anchor: {anchor.budget} of {anchor.steps} evaluations. Errors are {anchor.metric}, mean over {judged}.",
        f"Cost: {spent:.0f} evaluations a case, {spent / anchor.steps:.1f} full runs ("
        + ", ".join(f"{stage} {count:.0f}" for stage, count in found.evaluations.items()) + ")"
        + (f", and {found.decoded:.0f} decoded pictures a case." if found.decoded else "; judged by latents, nothing decoded."),
        "budget  up to     PSNR     error  from",
        *(
            f"{s.budget:>6}  {s.ideal_speedup:>4.1f}x  {decibels(s):>7}  {s.score:>8.4g}  {s.provenance}"
            for s in anchor.prepared
        ),
    ]  # fmt: skip
    return "\n".join(lines)
