"""OT Auto Cache through a server of its own: the first picture is core's, the next are fast, also after a restart."""

import json
import shutil
import time
import urllib.parse

import pytest
from PIL import Image
from serving import filled

STEPS = 20
# A test pack: each network pass waits, so that a run can be cancelled in the middle.
SLOW = '''
import time


class SlowModel:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "slow", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "seconds": ("FLOAT", {"default": 0.5})}}

    def slow(self, model, seconds):
        def wait(apply, inputs):
            time.sleep(seconds)
            return apply(inputs["input"], inputs["timestep"], **inputs["c"])

        model = model.clone()
        model.set_model_unet_function_wrapper(wait)
        return (model,)


NODE_CLASS_MAPPINGS = {"SlowModel": SlowModel}
'''


@pytest.fixture
def own(make_server, tmp_path):
    """A server that has learnt nothing."""
    started = make_server(tmp_path)
    (started.base / "custom_nodes" / "slow_model.py").write_text(SLOW)
    with started as running:
        yield running


def graph(auto=True, seed=1, seconds=0.0, **inputs):
    nodes = {
        "demo": {"class_type": "OTDemoModel", "inputs": {}},
        "slow": {"class_type": "SlowModel", "inputs": {"model": ["demo", 0], "seconds": seconds}},
        "auto": {"class_type": "OTAutoCache", "inputs": {"model": ["slow", 0], "speedup": 3.0}},
        "sampler": {"class_type": "KSampler", "inputs": {
            "model": ["auto" if auto else "slow", 0], "seed": seed, "steps": STEPS, "cfg": 4.0, "sampler_name": "euler",
            "scheduler": "simple", "positive": ["demo", 1], "negative": ["demo", 2], "latent_image": ["demo", 4],
            "denoise": 1.0} | inputs},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["demo", 3]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "auto"}},
    }  # fmt: skip
    return nodes if auto else {name: node for name, node in nodes.items() if name != "auto"}


def picture(server, entry):
    [image] = entry["outputs"]["save"]["images"]
    query = urllib.parse.urlencode({"filename": image["filename"], "subfolder": image["subfolder"], "type": image["type"]})
    path = server.base / "received.png"
    path.write_bytes(server.get(f"/view?{query}"))
    with Image.open(path) as opened:
        return opened.convert("RGB").tobytes()


def reports(server):
    """What the log says of runs."""
    return [line.partition("OTCache: ")[2] for line in server.log().splitlines() if "model evaluations for" in line]


def lessons(server):
    return [path for path in (server.base / "models" / "otcache_schedules").rglob("*") if path.is_file()]


def test_from_the_first_picture_to_a_restart(own):
    core = picture(own, own.run(filled(own, graph(auto=False))))
    assert picture(own, own.run(filled(own, graph()))) == core
    assert len(lessons(own)) == 1 and reports(own)[-1].startswith(f"{STEPS} model evaluations")
    assert "learnt from this run" in reports(own)[-1]
    fast = picture(own, own.run(filled(own, graph(seed=2))))
    assert reports(own)[-1].startswith("6 model evaluations for 20 steps; 3.33x faster ideally")
    assert fast != core and len(lessons(own)) == 1
    own.__exit__()
    with own:  # its log begins anew
        assert not reports(own)
        own.run(filled(own, graph(seed=3, steps=28)))
        assert reports(own)[-1].startswith("9 model evaluations for 28 steps")
        assert picture(own, own.run(filled(own, graph(seed=2)))) == fast
        titles = own.object_info()["OTLoadSchedule"]["input"]["required"]["schedule"]
        assert "learnt: Flux-" in json.dumps(titles)
    assert len(lessons(own)) == 1


@pytest.mark.parametrize("passes", [5, STEPS + 2], ids=["in the run", "in a rehearsal"])
def test_cancelling_leaves_nothing_and_the_next_run_learns(own, passes):
    begun = time.monotonic()
    number = own.queue(filled(own, graph(seconds=0.4)))
    sleep = 0.4 * passes
    while not _sampling(own) and time.monotonic() < begun + 60:
        time.sleep(0.05)
    if passes > STEPS:  # the rehearsal begins when the progress bar of the run is full
        while f"{STEPS}/{STEPS}" not in own.log() and time.monotonic() < begun + 120:
            time.sleep(0.05)
        time.sleep(0.6)
    else:
        time.sleep(sleep)
    own.interrupt()
    entry = own.wait(number, 60)
    assert entry["status"]["status_str"] == "error" and "execution_interrupted" in json.dumps(entry["status"]["messages"])
    assert not reports(own) and not lessons(own)
    core = picture(own, own.run(filled(own, graph(auto=False))))
    assert picture(own, own.run(filled(own, graph()))) == core
    assert "learnt from this run" in reports(own)[-1] and len(lessons(own)) == 1


def _sampling(server):
    return "0/20" in server.log() or "1/20" in server.log()


def test_a_folder_that_comes_from_another_machine_is_used(own, make_server, tmp_path_factory):
    """The key says nothing of the machine: what was learnt can be copied."""
    own.run(filled(own, graph()))
    other = make_server(tmp_path_factory.mktemp("other"))
    (other.base / "custom_nodes" / "slow_model.py").write_text(SLOW)
    shutil.copytree(own.base / "models" / "otcache_schedules", other.base / "models" / "otcache_schedules")
    with other:
        other.run(filled(other, graph(seed=5)))
        assert reports(other)[-1].startswith("6 model evaluations")
