"""The real ComfyUI, in process (`host`) and as a server (`server`), with this pack loaded as ComfyUI loads it.

Tests here must reach the pack's modules through `host.module`: ComfyUI imports the pack under another name, and classes of
a second import would not be the nodes'.
"""

import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_finder = runpy.run_path(str(REPOSITORY / "tools" / "find_host.py"))
FOUND = _finder["find_host"]()
SKIPPED = "NO HOST TEST WAS RUN: NONE OF THE NODES IS TESTED"


def pytest_collection_modifyitems(config, items):
    if FOUND is not None:
        return
    if os.environ.get("OTCACHE_REQUIRE_HOST") == "1":
        raise pytest.UsageError(_finder["HINT"])
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="no ComfyUI was found"))


def pytest_terminal_summary(terminalreporter):
    if FOUND is None:
        terminalreporter.write_line("")
        terminalreporter.write_line(f"{SKIPPED}. {_finder['HINT']}", red=True, bold=True)


@pytest.fixture(scope="session")
def host():
    """See `in_process.Host`."""
    from in_process import boot

    with tempfile.TemporaryDirectory() as base:
        yield boot(FOUND, REPOSITORY, Path(base))


@pytest.fixture(autouse=True)
def forget_dead_models():
    """While ComfyUI keeps a model in mind whose patcher is gone, it collects all garbage at every run: a second each time."""
    yield
    if management := sys.modules.get("comfy.model_management"):
        loaded = management.current_loaded_models
        loaded[:] = [model for model in loaded if not model.is_dead()]


@pytest.fixture(scope="session")
def demo(host):
    """The embedded model: model, positive, negative, vae, latent [1, 16, 16, 16]."""
    names = ("model", "positive", "negative", "vae", "latent")
    return SimpleNamespace(**dict(zip(names, host.run("OTDemoModel"), strict=True)))


@pytest.fixture(scope="session")
def demo_small(host):
    """A random FLUX-style network of 0.2 million parameters for fast tests: model, positive, negative, latent [1, 16, 8, 8]."""
    import torch

    library = host.module("otcache_core.demo.model")
    config = library.FluxConfig(hidden_size=32, axes_dim=(8, 12, 12), depth=1, depth_single_blocks=1, vec_in_dim=16,
                                context_in_dim=16)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = library.FluxTransformer(config)
        for parameter in network.parameters():  # the library starts modulations and head at zero: a constant network
            torch.nn.init.normal_(parameter, std=0.15)
        conds = [[[torch.randn(1, 5, 16), {"pooled_output": torch.randn(1, 16)}]] for _ in range(2)]
    model = host.module("nodes.host.demo_flux").build_model(config, network.state_dict())
    return SimpleNamespace(model=model, positive=conds[0], negative=conds[1], latent={"samples": torch.zeros(1, 16, 8, 8)})


@pytest.fixture
def learnt(host, tmp_path):
    """An empty folder of schedules for this test alone, where models learn."""
    from learning import moved

    with moved(host, tmp_path / "schedules") as folder:
        yield folder


@pytest.fixture(scope="session")
def make_server():
    """make_server(base) -> a `serving.Server` that is not started yet, with the files that the registry ships."""
    from packing import unpacked
    from serving import Server

    with tempfile.TemporaryDirectory() as pack:
        files = unpacked(REPOSITORY, Path(pack))
        yield lambda base: Server(FOUND, files, base)


@pytest.fixture(scope="session")
def server(make_server):
    """See `serving.Server`. It serves the files that the registry ships, and the test pack tiny_clip."""
    with tempfile.TemporaryDirectory() as base:
        started = make_server(Path(base))
        shutil.copy(Path(__file__).parent / "tiny_clip.py", started.base / "custom_nodes")
        with started as running:
            yield running


# Helper modules lie beside this file; ComfyUI's own `nodes` must win over this repository's, which pytest put on the path.
sys.path.append(str(Path(__file__).parent))
