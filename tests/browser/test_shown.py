"""What OT Load Schedule, OT Save Schedule and OT Compare show on themselves."""

import json

from small import small
from strips import MODES, cells

LOAD, SAVE, COMPARE = "OTLoadSchedule", "OTSaveSchedule", "OTCompare"
ADD = """() => {
  const graph = app.graph, budget = nodeOf("OTBudgetInterpolate")
  const add = (type, x, y) => {
    const node = LiteGraph.createNode(type)
    node.pos = [x, y]
    graph.add(node)
    return node
  }
  budget.connect(0, add("OTSaveSchedule", 450, 300), 0)
  const compare = add("OTCompare", 2100, 0)
  graph.nodes.filter(node => node.type === "VAEDecode").forEach((node, i) => node.connect(0, compare, i))
}"""
IMAGE = """() => {
  const node = nodeOf("OTCompare")
  const image = LiteGraph.vueNodesMode ? document.querySelector(`[data-node-id="${node.id}"] img`) : node.imgs?.[0]
  return image?.naturalWidth ? [image.naturalWidth, image.naturalHeight] : null
}"""


@MODES
def test_a_schedule_is_shown_as_soon_as_it_is_chosen(open_comfy, shots, vue):
    comfy, name = open_comfy(vue=vue), "nodes2" if vue else "classic"
    comfy.load(small(comfy), "small")
    strip = comfy.strip_on(LOAD)
    label, foot = strip.locator(".label"), strip.locator(".foot")
    comfy.eventually(lambda: label.inner_text() == "15 of 50 evaluations, up to 3.3x")
    assert (cells(strip, "run"), cells(strip, "skip")) == (15, 35)
    assert foot.inner_text().splitlines() == [
        "made for FLUX.1 [dev], shift 3.158", "LeMiCa, official code (UnicomAI/LeMiCa), arXiv 2511.00090",
    ]  # fmt: skip
    comfy.page.screenshot(path=shots / f"shown_{name}_1_load.png")
    comfy.set("schedule", "lemica-wan2.1-i2v-14", LOAD)
    comfy.eventually(lambda: label.inner_text() == "14 of 40 evaluations, up to 2.9x")
    assert foot.inner_text().startswith("made for Wan2.1-I2V, ")

    broken = comfy.server.base / "models" / "otcache_schedules" / "broken.json"
    broken.parent.mkdir(exist_ok=True)
    broken.write_text('{"format": "otcache-schedule"}')
    comfy.set("schedule", "broken.json", LOAD)
    comfy.eventually(lambda: strip.inner_text().startswith("broken.json: sigmas: "))
    comfy.set("schedule", "lemica-flux1-dev-10", LOAD)
    comfy.eventually(lambda: label.inner_text() == "10 of 50 evaluations, up to 5x")
    broken.unlink()
    workflow, prompt = comfy.documents()
    assert "strip" not in json.dumps([workflow, prompt]).lower()
    [inputs] = [node["inputs"] for node in prompt.values() if node["inputs"].get("schedule") == "lemica-flux1-dev-10"][:1]
    assert set(inputs) == {"schedule", "speedup"}


@MODES
def test_saving_and_comparing_say_what_came_of_it(open_comfy, shots, vue):
    comfy, name = open_comfy(vue=vue), "nodes2" if vue else "classic"
    comfy.load(small(comfy), "small")
    comfy.page.evaluate(ADD)
    assert "After a run" in comfy.strip_on(SAVE).inner_text() and comfy.page.evaluate(IMAGE) is None
    comfy.set("name", f"shown {name}", SAVE)
    comfy.set("seed", 300, "OTCachedSampler")
    comfy.run()
    note = comfy.strip_on(SAVE)
    assert note.inner_text().splitlines() == [
        f"saved: models/otcache_schedules/shown {name}.json", "10 of 50 evaluations", "made for FLUX.1 [dev]",
    ]  # fmt: skip
    assert (comfy.server.base / "models" / "otcache_schedules" / f"shown {name}.json").exists()
    comfy.page.screenshot(path=shots / f"shown_{name}_2_save.png")
    note = comfy.strip_on(COMPARE)
    lines = note.inner_text().splitlines()
    assert [line.partition(":")[0] for line in lines[-5:-1]] == ["PSNR", "RMSE", "SSIM", "MS-SSIM"]
    assert lines[-5].endswith(" dB") and lines[0].startswith("Two different pictures, whatever the cache does: seed ")
    assert lines[-1] == "below, from left to right: cached, full, difference"
    assert comfy.eventually(lambda: comfy.page.evaluate(IMAGE)) == [3 * 64 + 16, 64]
    comfy.settle()
    comfy.page.screenshot(path=shots / f"shown_{name}_3_compare.png")
    before = lines
    comfy.page.reload()
    comfy.wait()
    comfy.eventually(lambda: comfy.strip_on(COMPARE).inner_text().splitlines()[1:] == before[:-1])
    assert comfy.strip_on(COMPARE).inner_text().startswith("earlier run, ")
    assert comfy.complaints == []
