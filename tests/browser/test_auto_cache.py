"""OT Auto Cache as a newcomer meets it: found by the name of another cache, wired, run twice."""

import json
import re

import pytest
from strips import MODES, NODES2, RULES, cells

from tools.make_locales import FILE

# Nodes beside it, wired through the app's graph: dragging links is ComfyUI's own affair.
RUN = {"steps": 20, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple"}
WIRE = """() => {
  const graph = app.canvas.graph, auto = nodeOf("OTAutoCache")
  const add = (type, x, y) => {
    const node = LiteGraph.createNode(type)
    node.pos = [x, y]
    graph.add(node)
    return node
  }
  auto.pos = [0, 0]
  const demo = add("OTDemoModel", -500, 0), sampler = add("KSampler", 500, 0)
  const decode = add("VAEDecode", 900, 0), show = add("PreviewImage", 1200, 0)
  const link = (from, output, to, input) => from.connect(output, to, to.inputs.findIndex(({ name }) => name === input))
  link(demo, 0, auto, "model")
  link(auto, 0, sampler, "model")
  link(demo, 1, sampler, "positive")
  link(demo, 2, sampler, "negative")
  link(demo, 4, sampler, "latent_image")
  link(sampler, 0, decode, "samples")
  link(demo, 3, decode, "vae")
  link(decode, 0, show, "images")
}"""
SEARCH = "app.extensionManager.command.execute('Workspace.SearchBox.Toggle')"
WORDS = ["teacache", "magcache", "easycache", "lazycache", "speed up", "faster", "accelerate", "skip steps", "加速"]
CORES = {"easycache", "lazycache"}


def search(comfy, words):
    """The titles that the open node search finds, the best first."""
    comfy.page.locator("input[role=combobox]").last.fill(words)
    results = comfy.page.get_by_test_id("result-item")
    comfy.page.wait_for_timeout(500)  # it looks once the typing has paused
    comfy.eventually(results.count)
    return [text.partition("\n")[0] for text in results.all_inner_texts()]


@MODES
def test_from_an_empty_graph_to_skipped_steps(open_comfy, shots, vue):
    comfy = open_comfy(vue=vue)
    page, name = comfy.page, f"auto_{'nodes2' if vue else 'classic'}"
    page.evaluate("app.graph.clear()")
    page.evaluate(SEARCH)
    assert search(comfy, "teacache")[0] == "OT Auto Cache"
    page.screenshot(path=shots / f"{name}_1_search.png")
    page.keyboard.press("Enter")
    comfy.eventually(lambda: page.evaluate("!!nodeOf('OTAutoCache')"))
    page.get_by_placeholder("Add a node...").wait_for(state="hidden")
    for x in (600, 700):  # the node hangs on the mouse until it is dropped
        page.mouse.move(x, 450)
        page.wait_for_timeout(300)
    page.mouse.click(700, 450)
    comfy.eventually(lambda: not page.evaluate("nodeOf('OTAutoCache').flags.ghost"))
    page.evaluate(WIRE)
    comfy.set_all({"KSampler": RUN})
    # Other tests of this server may have taught the demo model; this workflow begins anew.
    comfy.set("learn", "anew", "OTAutoCache")
    strip = comfy.strip_on("OTAutoCache")
    assert strip.is_visible() and strip.inner_text().startswith("After a run")

    comfy.run()
    strip = comfy.strip_on("OTAutoCache")
    comfy.eventually(lambda: strip.locator(".label").inner_text() == "20 of 20 evaluations, in full")
    assert strip.locator(".foot").inner_text() == "learnt from this run; learn is anew: the next one is made in full, too"
    assert (cells(strip, "run"), cells(strip, "skip")) == (20, 0)
    page.screenshot(path=shots / f"{name}_2_learnt.png")

    comfy.set("learn", "when needed", "OTAutoCache")
    comfy.run()
    comfy.eventually(lambda: strip.locator(".label").inner_text() == "6 of 20 evaluations, 3.3x ideal")
    assert not page.evaluate("nodeOf('OTAutoCache').widgets.some(({ name }) => name.includes('text-preview'))")  # of the lesson
    assert (cells(strip, "run"), cells(strip, "skip")) == (6, 14)
    assert "learnt from 1 ordinary run" in strip.locator(".foot").inner_text()
    assert re.search(r"6 of 20 evaluations", strip.get_attribute("aria-label"))
    page.screenshot(path=shots / f"{name}_3_skipped.png")
    workflow, prompt = comfy.documents()
    [node] = [node for node in prompt.values() if node["class_type"] == "OTAutoCache"]
    own = {"model", "speedup", "choose", "budget", "target_error", "reuse", "learn"}
    assert set(node["inputs"]) == own | RULES
    assert not re.search("strip", str([workflow, prompt]), re.IGNORECASE)
    assert not comfy.complaints


@NODES2
def test_chinese_progress_and_reports(open_comfy, shots, vue):
    """What the server says in English, on the node while it works and in the strip when it is done."""
    comfy = open_comfy(vue=vue, locale="zh")
    page = comfy.page
    page.evaluate("""() => {
      app.graph.clear()
      app.graph.add(LiteGraph.createNode("OTAutoCache"))
      window.said = [] // a quick rehearsal's texts may be gone with the run before they have been drawn
      const look = () => said.push(nodeOf("OTAutoCache").widgets.find(({ name }) => name === "$$node-text-preview").value)
      window.comfyAPI.api.api.addEventListener("progress_text", () => queueMicrotask(look))
    }""")
    page.evaluate(WIRE)
    comfy.set_all({"KSampler": RUN | {"seed": 7 + vue}, "OTAutoCache": {"learn": "anew"}})
    comfy.run()
    strip = comfy.strip_on("OTAutoCache")
    taught = "已从这次运行学习\uff1b学习设为重新学\uff1a下一次也完整计算"
    comfy.eventually(lambda: strip.locator(".foot").inner_text() == taught)
    said = page.evaluate("said")
    assert said[-1] == "OT 自动缓存\uff1a已学习" and len(said) > 1
    assert all(re.fullmatch(r"OT 自动缓存\uff1a排练 \d+/\d+\uff0c求值 \d+ 次", text) for text in said[:-1])
    page.screenshot(path=shots / f"chinese_progress_{'nodes2' if vue else 'classic'}.png")

    comfy.set("learn", "when needed", "OTAutoCache")
    comfy.run()
    comfy.eventually(lambda: "由 1 次普通运行学得" in strip.locator(".foot").inner_text())
    page.screenshot(path=shots / f"chinese_report_{'nodes2' if vue else 'classic'}.png")
    assert not comfy.complaints


@pytest.mark.parametrize("locale", ["en", "zh"])
def test_words_that_people_look_for_find_it_first(open_comfy, locale):
    comfy = open_comfy(locale=locale)
    comfy.page.evaluate(SEARCH)
    definitions = json.loads((FILE.parents[1] / locale / "nodeDefs.json").read_text(encoding="utf-8"))
    titles = [definitions[name]["display_name"] for name in ("OTAutoCache", "OTApplyCache", "OTCachedSampler")]
    others = {node["display_name"] for node in definitions.values()} - set(titles)
    for words in WORDS:
        found = search(comfy, words)
        # Core's own caches come first where somebody looks for them by name.
        first = [name for name in found if name.startswith("OT ")] if words in CORES else found
        assert first[:3] == titles and not set(found) & others, (words, found)
    assert titles[0] in search(comfy, "otcache")[:3]
    assert "OTCache text to image" in search(comfy, "otcache") and "OTCache text to image" in search(comfy, "text to image")
    comfy.page.keyboard.press("Escape")
