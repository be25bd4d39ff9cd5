"""Draws docs/first_picture.png: what one ordinary run teaches. python -m benchmarks.first_picture (a minute on a CPU).

The embedded model, 50 Euler steps, CFG 7.5: one case is run in full, recorded and rehearsed; others are then sampled with
fewer evaluations.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from otcache_core.calibration.lessons import lesson
from otcache_core.calibration.metrics import psnr, rmse
from otcache_core.calibration.solving import solve
from otcache_core.demo.generator import DemoGenerator, cases
from otcache_core.drawing.charts import overview
from otcache_core.drawing.style import png_bytes, to_image
from otcache_core.files import written_whole
from otcache_core.sampling.rollout import record, sample
from otcache_core.sampling.solvers import SOLVERS, euler

OUT = Path(__file__).parents[1] / "docs" / "first_picture.png"
LEARNT_FROM, SHOWN_FROM, HELD_OUT, ROWS = 1000, 3000, 16, 4
BUDGETS, SHOWN, PLAIN = (6, 8, 10, 12, 15, 20, 25), (15, 10, 8), 8
OURS = "OTCache"
PLAIN_SOLVERS = ("euler", "dpmpp_2m")
YLABEL = "RMSE against the full run"


def main() -> None:
    """Learn, sample, draw, and print the errors."""
    generator = DemoGenerator()
    grid, taught, others = generator.sigmas(), cases(1, LEARNT_FROM), cases(HELD_OUT, SHOWN_FROM)
    learnt = lesson(generator, taught, [record(generator, taught[0], grid)])
    full = generator.decode(generator.sample(others))

    def ours(budget: int) -> torch.Tensor:
        return generator.decode(sample(generator, others, solve([learnt], grid, budget)))

    def plain(solver, budget: int) -> torch.Tensor:
        return generator.decode(solver(generator, others, generator.sigmas(budget)))

    made = {OURS: {budget: ours(budget) for budget in BUDGETS}}
    made |= {f"plain {name}": {b: plain(SOLVERS[name], b) for b in BUDGETS} for name in PLAIN_SOLVERS}
    errors = {name: {b: float(rmse(pictures, full).mean()) for b, pictures in row.items()} for name, row in made.items()}
    for name, row in errors.items():
        sys.stdout.write(f"{name:24}" + "".join(f"  {b}: {error:.4f}" for b, error in row.items()) + "\n")
    shown = [full, *(made[OURS][b] for b in SHOWN), plain(euler, PLAIN)]
    few = sorted({round(i) for i in np.linspace(0, HELD_OUT - 1, ROWS)})  # spread over the set, not chosen
    captions = [["full run", *(f"{float(psnr(p[i : i + 1], full[i : i + 1])[0]):.1f} dB" for p in shown[1:])] for i in few]
    titles = [f"{b} evaluations" for b in (len(grid) - 1, *SHOWN)] + [f"plain, {PLAIN} steps"]
    figure = overview([[p[i].movedim(0, -1).numpy() for p in shown] for i in few], titles, captions, errors, YLABEL)
    with written_whole(OUT) as temporary:
        temporary.write_bytes(png_bytes(to_image(figure), levels=86))
    sys.stdout.write(f"wrote {OUT.relative_to(OUT.parents[1])}\n")


if __name__ == "__main__":
    main()
