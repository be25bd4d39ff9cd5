"""The inputs that rule single steps beyond a budget: a range, a cap on skips, steps forced by hand."""

from comfy_api.latest import io

from .schema import field


def rules_inputs(steps: str, percent: str) -> list:
    """The inputs start_percent, end_percent, max_skips and forced; optional, so that prompts saved before them still run.

    steps: whose steps the numbers in `forced` count. percent: what the percents are of.
    """
    shown = {"optional": True, "advanced": True}
    return [
        field(io.Float.Input, "start_percent", default=0.0, min=0.0, max=1.0, step=0.01, round=0.001, **shown,
              tooltip=f"Every step before this is computed. {percent}"),
        field(io.Float.Input, "end_percent", default=1.0, min=0.0, max=1.0, step=0.01, round=0.001, **shown,
              tooltip=f"Every step after this is computed. {percent}"),
        field(io.Int.Input, "max_skips", default=0, min=0, max=1000, **shown, tooltip="The most predicted steps in a row; "
              "where there would be more, further steps are computed. 0 is no limit."),
        field(io.String.Input, "forced", default="", **shown, tooltip="Steps forced by hand, such as +3 -7: step 3 runs the "
              f"model, step 7 is predicted. Click a step of the strip to write it here. Numbers are {steps}, from 1 on; the "
              "first is always computed."),
    ]  # fmt: skip
