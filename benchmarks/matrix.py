"""Every model at every reuse level, and every sampler in every situation: python benchmarks/matrix.py [--full]

Prints two tables in markdown: evaluations made / asked for by the sampler at a third of the steps, and the relative L2
distance to the run in full. Random weights, so the distance says that nothing is wrong, not how good a picture is. Every
cell has also been compared bit for bit with core's result at full budget. Exits with 1 when a cell is wrong. ComfyUI is
found as the tests find it (tools/find_host.py); the cells are those of tests/host/test_matrix_*.py.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from booted import boot_host, say

SAMPLERS = ("euler", "dpmpp_2m", "uni_pc", "er_sde", "heun", "dpmpp_sde", "dpm_fast")


def models(host) -> bool:
    from matrix_cells import LEVELS, measure, two_experts
    from matrix_models import MODELS, build

    say(f"| model | {' | '.join(LEVELS)} | why not blocks |\n|---|---|---|---|")
    kept = True
    for name, tiny in MODELS.items():
        case = build(tiny)
        if case is None:
            say(f"| {name} | not in this ComfyUI | | |")
            continue
        cells = [measure(host, case, level) for level in LEVELS]
        say(f"| {name} | {' | '.join(cell.text for cell in cells)} | {cells[-1].reason} |")
        kept &= all(cell.good for cell in cells)
    cells = [two_experts(host, level) for level in LEVELS]
    say(f"| Wan 2.2, two experts | {' | '.join(cell.text for cell in cells)} | |")
    return kept and all(cell.good for cell in cells)


def situations(host, samplers) -> bool:
    from matrix_cells import sampler_kind
    from matrix_models import MODELS, build
    from matrix_situations import SITUATIONS, cell_of

    say(f"\n| situation | {' | '.join(samplers)} |\n|---|{'---|' * len(samplers)}")
    kept, cases = True, {}
    for name, situation in SITUATIONS.items():
        if situation.model not in cases:
            cases[situation.model] = build(MODELS[situation.model])
        cells = [cell_of(host, cases[situation.model], name, "output", sampler) for sampler in samplers]
        say(f"| {name} | {' | '.join(cell.text for cell in cells)} |")
        kept &= all(cell.good for cell in cells)
        kept &= all(bool(cell.reason) == bool(sampler_kind(s)) for s, cell in zip(samplers, cells, strict=True))
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all samplers of this ComfyUI, not one of each kind")
    full = parser.parse_args().full
    with tempfile.TemporaryDirectory() as base:
        host = boot_host(Path(base))
        from comfy.samplers import SAMPLER_NAMES
        from comfyui_version import __version__

        say(f"ComfyUI {__version__}, 12 steps, budget 4, linear extrapolation halved\n")
        kept = all([models(host), situations(host, SAMPLER_NAMES if full else SAMPLERS)])
        say(f"\n{'Every cell is right.' if kept else 'SOME CELLS ARE WRONG.'}")
        return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
