"""The strips in the real frontend, in the classic canvas and in Nodes 2.0."""

import json
import re

import pytest
from strips import CLASSIC, INPUTS, MODES, NODE, NODES2, QUICK, SAMPLER, TO_SUBGRAPH, cells, demo, shows


@MODES
def test_strip_follows_the_slider_and_shows_what_ran(open_comfy, shots, vue):
    comfy = open_comfy(vue=vue)
    comfy.server.post("/history", {"clear": True})
    comfy.open_template("otcache_demo")
    comfy.set_all(QUICK)
    strip, name = comfy.strip_on(NODE), "nodes2" if vue else "classic"
    assert strip.is_visible() and strip.inner_text().startswith("Run once")
    comfy.page.screenshot(path=shots / f"{name}_1_before.png")

    comfy.run()
    strip = comfy.strip_on(NODE)
    assert comfy.budget() == 10 and shows(strip, 10)
    assert strip.locator(".label").inner_text() == "10 of 50 evaluations, up to 5x"
    said = r"about \d\d dB, (differs in details|hard to tell apart); error 0\.0\d+ \(measured\)"
    assert re.fullmatch(said, strip.locator(".foot").inner_text())
    assert strip.locator(".plot path.ring").get_attribute("d")
    comfy.page.screenshot(path=shots / f"{name}_2_after.png")
    report = comfy.strip_on(SAMPLER)
    assert report.locator(".label").inner_text() == "10 of 50 evaluations, 5x ideal"
    assert re.fullmatch(r"[\d.]+x( ± [\d.]+)? as fast as in full, measured", report.locator(".foot").inner_text())
    assert (cells(report, "run"), cells(report, "skip")) == (10, 40)
    comfy.page.screenshot(path=shots / f"{name}_3_report.png")

    before = strip.locator(".plot path.run").get_attribute("d")
    comfy.drag_budget(0.4)
    dragged = comfy.budget()
    assert 16 <= dragged <= 26 and shows(comfy.strip_on(NODE), dragged)
    assert strip.locator(".plot path.run").get_attribute("d") != before
    assert "not measured" in strip.locator(".foot").inner_text()
    comfy.page.screenshot(path=shots / f"{name}_4_dragged.png")
    comfy.drag_budget(1.0)  # the slider ends where the steps do
    assert comfy.budget() == 50
    assert strip.locator(".label").inner_text() == "50 of 50 evaluations, in full"

    strip.focus()
    seen = []
    for key in ("Home", "PageUp", "PageUp", "ArrowRight", "ArrowLeft", "ArrowUp"):
        comfy.page.keyboard.press(key)
        seen.append(comfy.budget())
        assert shows(strip, seen[-1]) and strip.get_attribute("aria-valuenow") == str(seen[-1])
    assert seen == [1, 6, 11, 12, 11, 12]
    assert strip.get_attribute("aria-label").startswith("OTCache Budget strip. 12 of 50 evaluations, up to 4.2x. about ")
    comfy.page.screenshot(path=shots / f"{name}_5_keys.png")

    workflow, prompt = comfy.documents()
    node = next(node for node in workflow["nodes"] if node["type"] == NODE)
    assert node["widgets_values"] == [12, "by hand", 0.03, 4, 0, 1, 0, ""] and set(prompt[str(node["id"])]["inputs"]) == INPUTS
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
    comfy.eventually(lambda: shows(strip, 12))
    assert comfy.strip_on(SAMPLER).locator(".label").inner_text().startswith("12 of 50 evaluations")
    comfy.page.screenshot(path=shots / f"{name}_6_reloaded.png")
    assert comfy.complaints == []


@pytest.mark.parametrize(("palette", "vue"), [("dark", False), ("light", True)], ids=["dark-classic", "light-nodes2"])
def test_strip_is_readable_in_every_theme(open_comfy, shots, vue, palette):
    """Contrast of the text, small print included, is at least 4.5 (WCAG AA); of marker and target 2, beside their shapes."""
    comfy = open_comfy(vue=vue, palette=palette)
    comfy.load(demo(), "otcache_demo")
    comfy.run()
    comfy.choose("by error")
    strip = comfy.strip_on(NODE)
    comfy.page.screenshot(path=shots / f"theme_{palette}_{'nodes2' if vue else 'classic'}.png")
    # Drawn on a canvas first, which turns every notation of a colour into bytes.
    ink, paper, accents = strip.evaluate("""element => {
      const draw = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d")
      const bytes = colour => {
        draw.fillStyle = colour
        draw.fillRect(0, 0, 1, 1)
        return [...draw.getImageData(0, 0, 1, 1).data]
      }
      const style = getComputedStyle(element)
      const strokes = ["ring", "target"].map(name => bytes(getComputedStyle(element.querySelector(`path.${name}`)).stroke))
      return [bytes(style.color), bytes(style.backgroundColor), strokes]
    }""")
    assert contrast(ink, paper) >= 4.5 / 0.8  # the small print has an opacity of 0.8
    assert min(contrast(accent, paper) for accent in accents) >= 2
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
    comfy.load(demo(), "otcache_demo")
    comfy.page.evaluate(TO_SUBGRAPH)
    comfy.open_subgraph()
    comfy.run()
    assert shows(comfy.strip_on(NODE), 10)
    comfy.page.screenshot(path=shots / f"subgraph_{'nodes2' if vue else 'classic'}.png")
    comfy.drag_budget(0.3)
    assert shows(comfy.strip_on(NODE), comfy.budget()) and comfy.budget() != 10
    assert comfy.complaints == []


def test_apply_cache_shows_the_run_of_another_nodes_sampler(open_comfy, shots):
    comfy = open_comfy()
    comfy.load(demo(), "otcache_demo")
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
    said = comfy.eventually(lambda: strip.locator(".label").inner_text())
    assert said == "10 of 50 evaluations, 5x ideal"
    comfy.page.screenshot(path=shots / "apply_cache.png")
    comfy.page.reload()
    comfy.wait()
    strip = comfy.strip_on("OTApplyCache")
    comfy.eventually(lambda: strip.locator(".label").inner_text() == said)
    assert comfy.complaints == []


def test_strip_speaks_chinese(open_comfy, shots):
    comfy = open_comfy(vue=True, locale="zh")
    comfy.load(demo(), "otcache_demo")
    comfy.run()
    assert comfy.strip_on(NODE).locator(".label").inner_text() == "50 步中计算 10 次\uff0c最多快 5 倍"
    comfy.page.evaluate("""() => nodeOf("OTCompare").onExecuted({ otcache: [{
      kind: "compared",
      text: "differs in details\\nPSNR: 33.00 dB (mean), 30.10 dB (worst, picture 3 of 8)",
    }] })""")
    note = "细节有差异\nPSNR：33.00 dB（平均），30.10 dB（最差，8 张中第 3 张）\n下图从左到右：缓存结果、完整运行、差异"
    assert comfy.strip_on("OTCompare").inner_text() == note
    comfy.page.screenshot(path=shots / "chinese.png")
    assert comfy.complaints == []


def test_a_redraw_changes_little_of_the_page(open_comfy):
    """At N = 100 with every budget from 10 to 29 judged: what one move of the slider costs, counted, and its time printed."""
    comfy = open_comfy()
    times, changes, grown = comfy.page.evaluate("""async () => {
      const { Strip } = await import("/extensions/otcache/js/otcache/strip.mjs")
      const { wordsFor } = await import("/extensions/otcache/js/otcache/words.mjs")
      const asked = { budget: 10, choose: "by hand", target_error: 0.05, target_speedup: 4 }
      const strip = new Strip("budget", wordsFor("en"), () => asked, () => {})
      strip.element.style.width = "320px"
      document.body.append(strip.element)
      const sigmas = Array.from({ length: 101 }, (_, i) => 1 - i / 100)
      const even = count => Array.from({ length: count }, (_, k) => Math.floor(k * 100 / count))
      const prepared = {}, curve = []
      for (let budget = 10; budget < 30; budget++) {
        prepared[budget] = { steps: even(budget), score: 1 / budget }
        curve.push([budget, 1 / budget])
      }
      strip.take({ kind: "budget", asked, metric: "rmse", sigmas, anchor: even(10), reference: even(30), prepared, curve })
      while (!strip.paths.run.getAttribute("d")) await new Promise(requestAnimationFrame)
      const times = { drawn: [], "laid out": [] }, changes = [], count = () => strip.element.querySelectorAll("*").length
      const seen = new MutationObserver(() => {}), elements = count()
      seen.observe(strip.element, { subtree: true, childList: true, attributes: true, characterData: true })
      for (let round = 0; round < 5; round++) {
        for (let budget = 1; budget <= 100; budget++) {
          asked.budget = budget
          asked.choose = round % 2 ? "by error" : "by hand"
          asked.target_error = 0.03 + 0.001 * budget
          const begin = performance.now()
          strip.show()
          const drawn = performance.now()
          strip.element.getBoundingClientRect() // layout is part of it
          changes.push(seen.takeRecords().length)
          if (round) {
            times.drawn.push(drawn - begin)
            times["laid out"].push(performance.now() - begin)
          }
        }
        await new Promise(requestAnimationFrame)
      }
      const grown = count() - elements
      strip.element.remove()
      return [times, Math.max(...changes), grown]
    }""")  # fmt: skip
    for name, values in times.items():
        values.sort()
        median, high = values[len(values) // 2], values[int(len(values) * 0.95)]
        print(f"{name} at N = 100: median {median:.2f} ms, 95 of 100 below {high:.2f} ms, worst {values[-1]:.2f} ms")
    print(f"at most {changes} changes of the page")
    assert grown <= 2 and changes <= 80  # 56: not one for each of 100 steps


@MODES
def test_the_wheel_zooms_over_the_strip_as_elsewhere_on_a_node(open_comfy, vue):
    comfy = open_comfy(vue=vue)
    comfy.load(demo(), "otcache_demo")
    box = comfy.strip_on(NODE).bounding_box()
    scales = []
    for y in (box["y"] - 60, box["y"] + box["height"] / 2):  # on the node's sockets, on the strip
        comfy.focus(NODE)
        comfy.page.mouse.move(box["x"] + box["width"] / 2, y)
        before = comfy.page.evaluate("app.canvas.ds.scale")
        comfy.page.mouse.wheel(0, -100)
        comfy.page.wait_for_function("before => app.canvas.ds.scale !== before", arg=before)
        comfy.settle()
        scales.append(comfy.page.evaluate("app.canvas.ds.scale"))
    assert scales[0] > 1.31 and abs(scales[0] - scales[1]) < 0.01


@CLASSIC
def test_undo_knows_of_keys_on_the_strip(open_comfy, vue):
    """One step for each key that was pressed, however long it was held; the strip keeps the focus meanwhile."""
    comfy = open_comfy(vue=vue)
    comfy.load(demo(), "otcache_demo")
    comfy.page.evaluate("""() => nodeOf("OTBudgetInterpolate").onExecuted({ otcache: [{
      kind: "budget", asked: {}, metric: "rmse", sigmas: Array.from({ length: 51 }, (_, i) => 1 - i / 50),
      anchor: [0, 25], reference: [0, 10, 20, 30, 40], prepared: {}, curve: [],
    }] })""")
    strip = comfy.strip_on(NODE)
    strip.focus()
    for key, expected in (("ArrowRight", 11), ("ArrowRight", 12), ("PageUp", 17)):
        comfy.page.keyboard.press(key)
        assert comfy.budget() == expected
        comfy.settle()
    restored = """() => app.extensionManager.workflow.activeWorkflow.changeTracker.activeState.nodes
      .find(node => node.type === "OTBudgetInterpolate").widgets_values[0]"""

    def undone(expected):
        assert (comfy.page.evaluate(restored), comfy.budget()) == (expected, expected)
        return True

    for expected in (12, 11, 10):
        comfy.settle()
        comfy.page.keyboard.press("Control+z")
        comfy.eventually(lambda expected=expected: undone(expected))


@NODES2
def test_links_and_slots_have_colours_of_their_own(open_comfy, vue):
    """Whatever palette is chosen."""
    comfy = open_comfy(vue=vue)
    comfy.load(demo(), "otcache_demo")
    colours = """() => [
      app.canvas.constructor.link_type_colors.OT_SCHEDULE, app.canvas.default_connection_color_byType.OT_CALIBRATION,
      getComputedStyle(document.documentElement).getPropertyValue("--color-datatype-OT_SCHEDULE").trim(),
    ]"""
    wanted = ["#2ec4b6", "#c98a4b", "#2ec4b6"]
    assert comfy.page.evaluate(colours) == wanted
    for palette in ("light", "dark"):
        comfy.page.evaluate("palette => app.extensionManager.setting.set('Comfy.ColorPalette', palette)", palette)
        comfy.settle()
        assert comfy.page.evaluate(colours) == wanted
