"""How hard a setting is: dB of as many plain steps against the full run of 50: python benchmarks/hardness.py unet --cfg 5 15

A real FLUX scores 14 to 16 dB with 10 plain Euler steps; the hard settings of `proof_cases.SETTINGS` are chosen with this.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path

from booted import boot_host, say
from proof_cases import SETTINGS, STEPS, cases
from proof_rows import HELD_OUT_SCENES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=list(dict.fromkeys(each.model for each in SETTINGS)))
    parser.add_argument("--cfg", nargs="+", type=float, help="guidance (that of the normal setting)")
    parser.add_argument("--shift", nargs="+", type=float, help="of the noise levels (likewise)")
    parser.add_argument("--schedulers", nargs="+", help="(likewise)")
    parser.add_argument("--samplers", nargs="+", help="of both runs (likewise)")
    parser.add_argument("--few", type=int, default=10, help="plain steps (%(default)s)")
    parser.add_argument("--scenes", type=int, default=4, help="other than those of the proof (%(default)s)")
    arguments = parser.parse_args()
    normal = next(each for each in SETTINGS if each.model == arguments.model)
    ways = product(arguments.cfg or [normal.cfg], arguments.shift or [normal.shift],
                   arguments.schedulers or [normal.scheduler], arguments.samplers or [normal.sampler])  # fmt: skip
    with tempfile.TemporaryDirectory() as base:
        host = boot_host(Path(base))
        import comfy.utils

        comfy.utils.PROGRESS_BAR_ENABLED = False
        say(f"{arguments.few} plain steps against {STEPS}, {arguments.scenes} scenes: mean dB, and the worst")
        for cfg, shift, scheduler, sampler in ways:
            setting = replace(normal, cfg=cfg, shift=shift, scheduler=scheduler, sampler=sampler)
            found = measured_psnr(host, setting, arguments.few, arguments.scenes)
            say(f"  {setting.text}: {found.mean():.1f}, {found.min():.1f}")
    return 0


def measured_psnr(host, setting, few: int, scenes: int):
    """dB of each scene, float64 [scenes]: of another set than the proof's, which no choice may see."""
    from sampling import ksampler

    new = cases(host, setting, HELD_OUT_SCENES + 1, scenes)
    options = {"cfg": setting.cfg, "sampler_name": setting.sampler, "scheduler": setting.scheduler, "seed": 77}
    made = [new.vae.decode(ksampler(host, new, steps=steps, **options)).clamp(0, 1) for steps in (few, STEPS)]
    return -10 * (made[0] - made[1]).double().square().flatten(1).mean(1).log10().numpy()


if __name__ == "__main__":
    sys.exit(main())
