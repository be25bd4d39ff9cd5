"""Whose results the strips show: those of runs that the graph would repeat, not those of another copy of the same template."""

from small import small
from strips import NODE, NODES2, SAMPLER

APPLY = "OTApplyCache"
def labels(comfy):
    """What the three strips say above; None where they ask for a run."""
    strips = [comfy.strip_on(node) for node in (NODE, SAMPLER, APPLY)]
    return [None if "empty" in strip.get_attribute("class") else strip.locator(".label").inner_text() for strip in strips]


def say(comfy, evaluations):
    found = labels(comfy)
    assert all(label and label.startswith(f"{evaluations} of 20 evaluations") for label in found[1:]), found
    return found[0].startswith(f"{evaluations} of 50 evaluations")


@NODES2
def test_a_fresh_copy_of_a_template_shows_no_other_runs_strips(open_comfy, shots, vue):
    comfy = open_comfy(vue=vue)
    template = small(comfy)
    comfy.load(template, "copy")
    comfy.server.post("/history", {"clear": True})
    comfy.set("budget", 12)
    comfy.set("control_after_generate", "randomize", "KSampler")
    comfy.set("control_after_generate", "fixed", SAMPLER)
    seed = 100 + vue  # what the server has sampled already is not sampled again, and reported by nobody
    comfy.set("seed", seed, "KSampler")
    comfy.run()
    comfy.eventually(lambda: say(comfy, 12))
    ran = comfy.documents()[0]
    assert comfy.value("seed", "KSampler") != seed

    comfy.load(template, "another copy")
    comfy.page.wait_for_timeout(1000)  # the history was asked for long before
    assert labels(comfy) == [None, None, None]
    comfy.page.screenshot(path=shots / f"restore_{'nodes2' if vue else 'classic'}.png")

    comfy.load(ran, "opened again")  # its seed alone has moved on, by ComfyUI itself
    comfy.eventually(lambda: say(comfy, 12))
    comfy.page.reload()
    comfy.wait()
    comfy.eventually(lambda: say(comfy, 12))

    comfy.set("seed", 5, SAMPLER)  # fixed: it says what is to be run
    comfy.load(comfy.documents()[0], "another seed")
    comfy.page.wait_for_timeout(1000)
    assert labels(comfy) == [None, None, None]
    assert comfy.complaints == []


def test_another_tab_keeps_what_its_own_run_gave(open_comfy):
    """Also where a value was changed since; the frontend keeps it for the tab."""
    comfy = open_comfy()
    template = small(comfy)
    comfy.load(template, "first")
    comfy.set("budget", 11)
    comfy.run()
    found = comfy.eventually(lambda: say(comfy, 11) and labels(comfy))
    comfy.set("steps", 30, "KSampler")
    comfy.load(template, "second")
    comfy.page.wait_for_timeout(1000)
    assert comfy.value("steps", "KSampler") == 20 and labels(comfy) == [None, None, None]
    comfy.page.locator(".workflow-tab", has_text="first").click()
    comfy.eventually(lambda: comfy.value("steps", "KSampler") == 30)
    comfy.eventually(lambda: labels(comfy) == found)
    assert comfy.complaints == []
