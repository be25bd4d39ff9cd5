"""That the measuring programs run: each once, as small as it goes, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

SMALL = {
    "judging": "-m benchmarks.judging --sizes 176",
    "block_reuse": "benchmarks/block_reuse.py --held-out 1",
    "samplers": "benchmarks/samplers.py --samplers res_multistep --steps 20 --cfg 4 --held-out 1 --jobs 1",
    "proof": "benchmarks/proof.py --models flux --difficulties normal --budgets 10 --held-out 1 --learners 1 --calibration 0 "
    "--families ours plain grids --out OUT",  # LeMiCa's graph alone would take minutes; peers have tests of their own
    "forks": "benchmarks/forks.py --scenes 2 --parts kicks places --places 25",
    "sheet": "benchmarks/trained/sheet.py unet --out OUT/sheet.png --scenes 1 --steps 2",
    "hardness": "benchmarks/hardness.py flux --scenes 1",
    "speed": "benchmarks/speed.py --device cpu --models FLUX.1",
    "first_run": "benchmarks/first_run.py --parts 20 --learners 1 --cases 1 --held-out 1 --without-core-caches",
}
LINES = {"sheet": 1, "hardness": 2}  # that they print at the least, where that is fewer than four


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_through_and_prints_its_table(name, tmp_path):
    """With so few pictures its contracts may be missed, which is exit status 1 and no fault."""
    told = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *SMALL[name].replace("OUT", str(tmp_path)).split()]
    ran = subprocess.run(command, cwd=REPOSITORY, env=told, capture_output=True, text=True, timeout=900)
    assert ran.returncode in (0, 1) and "Traceback" not in ran.stderr, ran.stderr[-2000:]
    assert "FAILED" not in ran.stdout and ran.stdout.count("\n") >= LINES.get(name, 4)
