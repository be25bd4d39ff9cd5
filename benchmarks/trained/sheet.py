"""What a trained model draws, below drawings of the same scenes: python benchmarks/trained/sheet.py unet --out sheet.png

A clip's frames lie side by side.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from booted import REPOSITORY, boot_host, say

SEED, SCALE = 5, 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("unet", "video"))
    parser.add_argument("--out", type=Path, required=True, help="PNG")
    parser.add_argument("--weights", type=Path, help="other ones than those that lie there")
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        host = boot_host(Path(base))
        import numpy as np
        import proof_cases
        import torch
        from PIL import Image
        from sampling import ksampler

        setting = next(each for each in proof_cases.SETTINGS if each.model == arguments.kind)
        sys.path.append(str(REPOSITORY))  # after ComfyUI's, whose `nodes` is meant wherever that is imported
        from trained import drawings, models

        if arguments.weights:
            proof_cases._loaded[arguments.kind] = models.load(arguments.kind, arguments.weights)
        case, rng = proof_cases.cases(host, setting, SEED, arguments.scenes), np.random.default_rng(SEED)
        scenes, drifts = drawings.sample_scenes(arguments.scenes, rng)
        latent, side = models.MODELS[arguments.kind].latent, models.MODELS[arguments.kind].side
        still = arguments.kind == "unet"
        known = drawings.stills(scenes, side, rng) if still else drawings.clips(scenes, drifts, latent[1], side, rng)
        made = ksampler(host, case, steps=arguments.steps, cfg=setting.cfg, scheduler=setting.scheduler)
        parts = [case.vae.decode(latents).clamp(0, 1) for latents in (known, made)]
        if not still:  # [n, T, H, W, 3]: frames side by side
            parts = [part.transpose(1, 2).flatten(2, 3) for part in parts]
        rows = [torch.cat(list(part), dim=1) if still else torch.cat(list(part), dim=0) for part in parts]
        sheet = torch.cat(rows, dim=0 if still else 1)
        pixels = (sheet * 255).round().byte().repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1)
        Image.fromarray(pixels.numpy(force=True)).save(arguments.out)
        say(f"{arguments.out}: {setting.text}, {arguments.steps} steps, {arguments.scenes} scenes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
