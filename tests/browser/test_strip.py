"""The strips in the real frontend, in the classic canvas and in Nodes 2.0."""

import json
import re
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "example_workflows" / "otcache_demo.json"
NODE, SAMPLER = "OTBudgetInterpolate", "OTCachedSampler"
MODES = pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes2"])
CELL = re.compile(r"M[-\d.]+ [-\d.]+h")


def cells(strip, kind):
    """How many cells of a kind ("run" or "skip") a strip shows."""
    return len(CELL.findall(strip.locator(f".plot path.{kind}").get_attribute("d")))


def shows(strip, budget, steps=50):
    assert strip.locator(".label").inner_text().startswith(f"{budget} of {steps} evaluations, up to ")
    assert (cells(strip, "run"), cells(strip, "skip")) == (budget, steps - budget)
    return True


@MODES
def test_strip_follows_the_slider_and_shows_what_ran(open_comfy, shots, vue):
    comfy = open_comfy(vue=vue)
    comfy.server.post("/history", {"clear": True})
    comfy.open_template("otcache_demo")
    strip, name = comfy.strip_on(NODE), "nodes2" if vue else "classic"
    assert strip.is_visible() and strip.inner_text().startswith("Run once")
    comfy.page.screenshot(path=shots / f"{name}_1_before.png")

    comfy.run()
    strip = comfy.strip_on(NODE)
    assert comfy.budget() == 10 and shows(strip, 10)
    assert strip.locator(".label").inner_text() == "10 of 50 evaluations, up to 5x"
    assert "measured in calibration" in strip.locator(".foot").inner_text()
    assert strip.locator(".plot path.ring").get_attribute("d")
    comfy.page.screenshot(path=shots / f"{name}_2_after.png")
    report = comfy.strip_on(SAMPLER)
    assert re.fullmatch(r"10 of 50 evaluations, 5x ideal, [\d.]+x measured", report.locator(".label").inner_text())
    assert (cells(report, "run"), cells(report, "skip")) == (10, 40)
    comfy.page.screenshot(path=shots / f"{name}_3_report.png")

    before = strip.locator(".plot path.run").get_attribute("d")
    comfy.drag_budget(0.4)
    dragged = comfy.budget()
    assert 25 <= dragged <= 50 and shows(comfy.strip_on(NODE), dragged)
    assert strip.locator(".plot path.run").get_attribute("d") != before
    assert "not measured" in strip.locator(".foot").inner_text()
    comfy.page.screenshot(path=shots / f"{name}_4_dragged.png")
    comfy.drag_budget(1.0)
    beyond = comfy.budget()
    assert beyond > 50, beyond
    assert strip.locator(".label").inner_text() == f"Budget {beyond} does not fit the 50 steps: choose 1 to 50."

    strip.focus()
    seen = []
    for key in ("Home", "PageUp", "PageUp", "ArrowRight", "ArrowLeft", "ArrowUp"):
        comfy.page.keyboard.press(key)
        seen.append(comfy.budget())
        assert shows(strip, seen[-1]) and strip.get_attribute("aria-valuenow") == str(seen[-1])
    assert seen == [1, 6, 11, 12, 11, 12]
    assert strip.get_attribute("aria-label").startswith("OTCache Budget strip. 12 of 50 evaluations, up to 4.2x. error 0.0")
    comfy.page.screenshot(path=shots / f"{name}_5_keys.png")

    workflow, prompt = comfy.documents()
    node = next(node for node in workflow["nodes"] if node["type"] == NODE)
    assert node["widgets_values"] == [12] and set(prompt[str(node["id"])]["inputs"]) == {"reference", "anchor", "budget"}
    assert not re.search("strip", json.dumps([workflow, prompt]), re.IGNORECASE)

    comfy.strip_on(NODE).evaluate("""element => {
      window.frames_seen = new Set()
      const path = element.querySelector("path.now")
      new MutationObserver(() => frames_seen.add(path.getAttribute("d"))).observe(path, { attributes: true })
    }""")
    comfy.run()
    seen = set(comfy.page.evaluate("[...frames_seen]"))
    assert len(seen - {""}) >= 1 and not strip.locator("path.now").get_attribute("d")  # lit while sampling, not after
    report = comfy.strip_on(SAMPLER)
    assert report.locator(".label").inner_text().startswith("12 of 50 evaluations, 4.2x ideal")

    comfy.page.reload()
    comfy.wait()
    assert comfy.budget() == 12
    strip = comfy.strip_on(NODE)
    strip.locator(".label").wait_for(timeout=10_000)
    assert shows(strip, 12)
    assert comfy.strip_on(SAMPLER).locator(".label").inner_text().startswith("12 of 50 evaluations")
    comfy.page.screenshot(path=shots / f"{name}_6_reloaded.png")
    assert comfy.complaints == []


@MODES
@pytest.mark.parametrize("palette", ["dark", "light"])
def test_strip_is_readable_in_every_theme(open_comfy, shots, vue, palette):
    """Contrast of the text, small print included, is at least 4.5 (WCAG AA); the marker's at least 2, beside its shape."""
    comfy = open_comfy(vue=vue, palette=palette)
    comfy.load(json.loads(DEMO.read_text(encoding="utf-8")), "otcache_demo")
    comfy.run()
    strip = comfy.strip_on(NODE)
    comfy.page.screenshot(path=shots / f"theme_{palette}_{'nodes2' if vue else 'classic'}.png")
    # Drawn on a canvas first, which turns every notation of a colour into bytes.
    ink, paper, accent = strip.evaluate("""element => {
      const draw = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d")
      const bytes = colour => {
        draw.fillStyle = colour
        draw.fillRect(0, 0, 1, 1)
        return [...draw.getImageData(0, 0, 1, 1).data]
      }
      const style = getComputedStyle(element), ring = getComputedStyle(element.querySelector("path.ring"))
      return [bytes(style.color), bytes(style.backgroundColor), bytes(ring.stroke)]
    }""")
    assert contrast(ink, paper) >= 4.5 / 0.8  # the small print has an opacity of 0.8
    assert contrast(accent, paper) >= 2
    assert comfy.complaints == []


def contrast(a, b):
    def light(colour):
        parts = [c / 255 for c in colour[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(a), light(b)))
    return (high + 0.05) / (low + 0.05)


@MODES
def test_strip_works_in_a_subgraph(open_comfy, shots, vue):
    comfy = open_comfy(vue=vue)
    comfy.load(json.loads(DEMO.read_text(encoding="utf-8")), "otcache_demo")
    comfy.page.evaluate("""() => {
      const node = app.graph.nodes.find(node => node.comfyClass === "OTBudgetInterpolate")
      app.canvas.deselectAll(); app.canvas.select(node)
      return app.extensionManager.command.execute("Comfy.Graph.ConvertToSubgraph")
    }""")
    comfy.page.evaluate("app.canvas.openSubgraph(app.graph.nodes.find(node => node.subgraph).subgraph)")
    comfy.page.wait_for_timeout(500)
    comfy.run()
    assert shows(comfy.strip_on(NODE), 10)
    comfy.page.screenshot(path=shots / f"subgraph_{'nodes2' if vue else 'classic'}.png")
    comfy.drag_budget(0.3)
    assert shows(comfy.strip_on(NODE), comfy.budget()) and comfy.budget() != 10
    assert comfy.complaints == []


def test_apply_cache_shows_the_run_of_another_nodes_sampler(open_comfy, shots):
    comfy = open_comfy()
    workflow = json.loads(DEMO.read_text(encoding="utf-8"))
    comfy.load(workflow, "otcache_demo")
    comfy.page.evaluate("""() => {
      const find = name => app.graph.nodes.find(node => node.comfyClass === name)
      const sampler = find("KSampler"), source = sampler.getInputNode(0)
      const apply = LiteGraph.createNode("OTApplyCache")
      app.graph.add(apply)
      apply.pos = [sampler.pos[0], sampler.pos[1] + 500]
      source.connect(0, apply, 0)
      find("OTBudgetInterpolate").connect(0, apply, 1)
      apply.connect(0, sampler, 0)
    }""")
    comfy.run()
    strip = comfy.strip_on("OTApplyCache")
    assert re.match(r"10 of 50 evaluations, 5x ideal, [\d.]+x measured", strip.locator(".label").inner_text())
    comfy.page.screenshot(path=shots / "apply_cache.png")
    assert comfy.complaints == []


def test_strip_speaks_chinese(open_comfy, shots):
    comfy = open_comfy(vue=True, locale="zh")
    comfy.load(json.loads(DEMO.read_text(encoding="utf-8")), "otcache_demo")
    comfy.run()
    assert comfy.strip_on(NODE).locator(".label").inner_text() == "50 步中计算 10 次\uff0c最多快 5 倍"
    comfy.page.screenshot(path=shots / "chinese.png")
    assert comfy.complaints == []


def test_redraw_takes_under_4_ms(open_comfy):
    """At N = 100 with every budget judged, layout included; what one frame of a drag costs."""
    comfy = open_comfy()
    times = comfy.page.evaluate("""async () => {
      const { Strip } = await import("/extensions/otcache/js/otcache/strip.mjs")
      const { wordsFor } = await import("/extensions/otcache/js/otcache/words.mjs")
      const strip = new Strip("budget", wordsFor("en"), () => {})
      strip.element.style.width = "320px"
      document.body.append(strip.element)
      const sigmas = Array.from({ length: 101 }, (_, i) => 1 - i / 100)
      const even = count => Array.from({ length: count }, (_, k) => Math.floor(k * 100 / count))
      const prepared = {}
      for (let budget = 10; budget < 30; budget++) prepared[budget] = { steps: even(budget), score: 1 / budget }
      strip.take({ kind: "budget", budget: 10, metric: "rmse", sigmas, anchor: even(10), reference: even(30), prepared })
      const times = []
      for (let round = 0; round < 4; round++) {
        for (let budget = 1; budget <= 100; budget++) {
          const begin = performance.now()
          strip.show(budget)
          strip.element.getBoundingClientRect() // layout is part of it
          times.push(performance.now() - begin)
        }
      }
      strip.element.remove()
      return times.slice(100)
    }""")  # fmt: skip
    times.sort()
    median, high = times[len(times) // 2], times[int(len(times) * 0.95)]
    print(f"redraw at N = 100: median {median:.2f} ms, 95 of 100 below {high:.2f} ms, worst {times[-1]:.2f} ms")
    assert median < 4


@MODES
def test_the_wheel_zooms_over_the_strip_as_elsewhere_on_a_node(open_comfy, vue):
    comfy = open_comfy(vue=vue)
    comfy.load(json.loads(DEMO.read_text(encoding="utf-8")), "otcache_demo")
    box = comfy.strip_on(NODE).bounding_box()
    scales = []
    for y in (box["y"] - 60, box["y"] + box["height"] / 2):  # on the node's sockets, on the strip
        comfy.focus(NODE)
        comfy.page.mouse.move(box["x"] + box["width"] / 2, y)
        comfy.page.mouse.wheel(0, -100)
        comfy.page.wait_for_timeout(300)
        scales.append(comfy.page.evaluate("app.canvas.ds.scale"))
    assert scales[0] > 1.31 and abs(scales[0] - scales[1]) < 0.01
