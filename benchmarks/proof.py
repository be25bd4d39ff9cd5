"""Ours against every peer and honest baseline, on three kinds of model: python benchmarks/proof.py --out DIR

For each model and difficulty all methods sample the same scenes from the same noise in the real ComfyUI, with as many
evaluations of 50; DIR receives proof.csv, proof.md and proof.png. Settings can be measured one after the other: lines of the
CSV are replaced or added. `--only-tables` makes tables and picture of it again.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from booted import REPOSITORY, boot_host, say

BUDGETS = (6, 8, 10, 12, 15, 20, 25)
FAMILIES = ("ours", "plain", "peer", "grids", "core")
COLUMNS = ("psnr mean", "psnr worst", "ssim mean", "perceptual mean")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for proof.csv, proof.md and proof.png")
    parser.add_argument("--models", nargs="+", default=["flux", "unet", "video"], help="of flux, unet, video (all)")
    parser.add_argument("--difficulties", nargs="+", default=["normal", "hard"], help="of normal, hard (both)")
    parser.add_argument("--budgets", nargs="+", type=int, default=BUDGETS, help="evaluations of 50 (%(default)s)")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES, help="rows (all)")
    parser.add_argument("--held-out", type=int, default=24, help="scenes to measure on (%(default)s)")
    parser.add_argument("--learners", type=int, default=2, help="ordinary runs that teach, each alone (%(default)s)")
    parser.add_argument("--calibration", type=int, default=4, help="scenes of the full calibration, 0 for none (%(default)s)")
    parser.add_argument("--calls", type=int, default=240, help="of BudCache's objective at each budget (%(default)s)")
    parser.add_argument("--without", nargs="+", default=(), help="published methods to leave out, by name")
    parser.add_argument("--only-tables", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    path, begin = arguments.out / "proof.csv", time.perf_counter()
    with tempfile.TemporaryDirectory() as base:
        records: list = []
        if not arguments.only_tables:
            host = boot_host(Path(base))
            import comfy.utils
            from proof_metrics import with_lpips

            comfy.utils.PROGRESS_BAR_ENABLED = False
            folders = host.module("nodes.host.lpips_folders").lpips_folders()
            if not with_lpips(host.module("otcache_core.calibration.metrics"), folders):
                say("LPIPS is not measured: its backbone is not on disk.")
        sys.path.append(str(REPOSITORY))  # after ComfyUI's, whose `nodes` is meant wherever that is imported
        from proof_tables import merged, read_csv, standing, write_csv

        old = read_csv(path) if path.exists() else []
        for setting in () if arguments.only_tables else chosen(arguments):
            for found in measured_budgets(host, setting, arguments):
                records += found
                write_csv(path, merged(old, records))
        if not arguments.only_tables:
            say(f"\n{time.perf_counter() - begin:.0f} s")
        records = merged(old, records)
        write_tables(arguments.out, records)
        for setting in dict.fromkeys(each["setting"] for each in records):
            say(f"\n{setting}: one ordinary run of ours beside the best of the others, dB of mean PSNR")
            say(standing(records, setting, "OTCache, one ordinary run"))
    return 0


def chosen(arguments: argparse.Namespace) -> list:
    """The settings that were asked for."""
    from proof_cases import SETTINGS

    return [each for each in SETTINGS if each.model in arguments.models and each.difficulty in arguments.difficulties]


def measured_budgets(host, setting, arguments: argparse.Namespace) -> Iterator[list[dict]]:
    """The records of one setting, budget by budget, each said as soon as it is known."""
    from proof_rows import Proof
    from proof_tables import record_of

    scenes = arguments.held_out, arguments.learners, arguments.calibration
    proof = Proof(host, setting, *scenes, arguments.calls, arguments.without)
    say(f"\n{setting.name}: {setting.text}; {arguments.held_out} scenes, {proof.full_seconds:.1f} s in full")
    say(f"  {'':32} evaluations  PSNR mean   median    worst     SSIM  perceptual  flicker  seconds")
    for budget in arguments.budgets:
        say(f"  B = {budget}")
        records = []
        for row in proof.rows(budget, tuple(arguments.families)):
            records.append(record_of(row))
            numbers = f"{row.mean('psnr'):10.2f} {row.median('psnr'):8.2f} {row.worst('psnr'):8.2f} {row.mean('ssim'):8.4f}"
            say(f"    {row.method:30} {row.evaluations:11} {numbers} {row.mean('perceptual'):11.4f} "
                f"{row.mean('flicker'):8.4f} {row.seconds:8.2f}")  # fmt: skip
        yield records


def write_tables(out: Path, records: list[dict]) -> None:
    """proof.md and proof.png of all records."""
    from proof_tables import summary, table, write_picture

    from otcache_core.files import write_text

    settings = list(dict.fromkeys(each["setting"] for each in records))
    parts = [f"# All rows of the proof\n\n## All settings\n\npsnr mean\n\n{summary(records, settings)}\n"]
    for setting in settings:
        parts.append(f"## {setting}\n")
        for column in COLUMNS:
            parts.append(f"{column}\n\n{table(records, setting, column, 1 if column.startswith('psnr') else 3)}\n")
    write_text(out / "proof.md", "\n".join(parts))
    write_picture(out / "proof.png", records, settings)


if __name__ == "__main__":
    sys.exit(main())
