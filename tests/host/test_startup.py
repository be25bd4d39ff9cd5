"""Loading the pack is cheap, and works without the packages that only some nodes need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LAZY = ("optuna", "matplotlib", "lpips")
REPOSITORY = Path(__file__).resolve().parents[2]


def in_a_fresh_process(code: str, base: Path):
    """What `code` assigns to `answer`, with `host` booted in a process that has imported nothing else."""
    import folder_paths

    script = f"""
import json, sys
from pathlib import Path
sys.path.append({str(Path(__file__).parent)!r})
from in_process import boot
{code}
sys.stdout.write("\\n" + json.dumps(answer))
"""
    paths = os.environ | {"PYTHONPATH": ""}
    script = script.replace("BOOT", f"boot(Path({str(Path(folder_paths.__file__).parent)!r}), Path({str(REPOSITORY)!r}), "
                            f"Path({str(base)!r}))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=paths, timeout=300, cwd=base)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_loading_is_lazy(host, tmp_path):
    code = f"""
host = BOOT
answer = sorted({{name.split(".")[0] for name in host.added_modules}} & set({LAZY!r}))
"""
    assert in_a_fresh_process(code, tmp_path) == []


def test_works_without_optional_packages(host, tmp_path):
    code = """
for name in ("optuna", "lpips"):
    sys.modules[name] = None
host = BOOT
model, positive, negative, vae, latent = host.run("OTDemoModel")
schedule, = host.run("OTLoadSchedule", schedule="lemica-flux1-dev-10")
host.run("OTSaveSchedule", schedule=schedule, name="x")
applied, = host.run("OTApplyCache", model=model, schedule=schedule)
sampling = dict(positive=positive, negative=negative, latent_image=latent, steps=12, cfg=4.0, sampler_name="euler",
                scheduler="simple", seed=1)
full, = host.run("KSampler", model=model, **sampling)
cached, = host.run("KSampler", model=applied, **sampling)
pictures = [host.run("VAEDecode", vae=vae, samples=latents)[0] for latents in (cached, full)]
answer = host.run("OTCompare", cached=pictures[0], full=pictures[1])[0]
"""
    text = in_a_fresh_process(code, tmp_path)
    assert "PSNR: " in text and "MS-SSIM: 0." in text


@pytest.mark.parametrize("file", ["requirements.txt", "pyproject.toml"])
def test_nothing_is_required_that_comfyui_brings(host, file):
    import folder_paths
    from packaging.requirements import Requirement

    own = (REPOSITORY / "requirements.txt").read_text().splitlines()
    own = [Requirement(line) for line in own if line.strip() and not line.startswith("#")]
    if file == "pyproject.toml":
        from comfy_config.config_parser import extract_node_configuration

        config = extract_node_configuration(str(REPOSITORY))
        assert config.tool_comfy.publisher_id == "otcache" and config.tool_comfy.display_name == "OTCache"
        assert [Requirement(line) for line in config.project.dependencies] == own
    brought = (Path(folder_paths.__file__).parent / "requirements.txt").read_text().splitlines()
    brought = {Requirement(line).name.lower() for line in brought if line.strip() and not line.startswith("#")}
    assert "torch" in brought and not brought & {requirement.name.lower() for requirement in own}
