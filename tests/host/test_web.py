"""What the browser is given: strips' data, locales, help pages."""

import json
import re
from pathlib import Path

import pytest

from tools.make_locales import NAMES, node_definitions
from tools.make_locales import text_of as locale_text

REPOSITORY = Path(__file__).resolve().parents[2]
LOCALES = REPOSITORY / "locales"
DOCS = REPOSITORY / "web" / "docs"


@pytest.fixture(scope="module")
def definitions(server):
    return node_definitions(server.object_info())


def load(language):
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def test_english_is_what_the_schemas_say(definitions):
    assert (LOCALES / "en" / "nodeDefs.json").read_text(encoding="utf-8") == locale_text(definitions), (
        "locales/en is out of date; run: python -m tools.make_locales, and look whether locales/zh needs a change too"
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_locales_name_everything_once(definitions, language):
    def keys(value, path=()):
        inner = value if isinstance(value, dict) else {}
        return {path} | {key for name in inner for key in keys(inner[name], (*path, name))}

    found = load(language)
    assert keys(found) == keys(definitions)
    texts = [value for node in found.values() for value in (node["display_name"], node["description"])]
    assert all(isinstance(text, str) and text.strip() for text in texts)


def test_chinese_is_chinese(definitions):
    for name, node in load("zh").items():
        for text in (node["display_name"], node["description"], *(entry["tooltip"] for entry in node["inputs"].values())):
            assert re.search("[\u4e00-\u9fff]", text), f"{name}: {text}"
        for key, entry in node["inputs"].items():
            labels = list(entry.get("options", {}).values())
            assert len(labels) == len(set(labels)), f"{name}: two choices of {key} look alike"
            assert all(re.search("[\u4e00-\u9fff]", label) for label in labels), f"{name}: {labels}"


def test_choices_that_are_words_have_labels(definitions):
    labelled = {key for node in definitions.values() for key, entry in node["inputs"].items() if "options" in entry}
    assert {"choose", "reuse", "sky", "shape_colour"} <= labelled and not labelled & NAMES


def test_the_server_serves_locales_script_and_style(server):
    served = json.loads(server.get("/i18n"))["zh"]["nodeDefs"]
    assert {name: served[name] for name in load("zh")} == load("zh")
    scripts = [path for path in json.loads(server.get("/extensions")) if "otcache" in path]
    assert scripts == ["/extensions/otcache/js/otcache.js"]  # one extension; pure modules are not loaded as such
    for path in (*scripts, "/extensions/otcache/js/otcache/strip.mjs", "/extensions/otcache/js/otcache/strip.css"):
        assert len(server.get(path)) > 500


def test_every_node_has_a_help_page_that_names_its_inputs_and_outputs(server, definitions):
    assert {path.stem for path in DOCS.glob("*.md")} == set(definitions)
    for name, node in definitions.items():
        page = server.get(f"/extensions/otcache/docs/{name}.md").decode()
        # Asked for first where the language is English; the other one is for languages that have no page of their own.
        assert server.get(f"/extensions/otcache/docs/{name}/en.md").decode() == page
        assert page.startswith(f"# {node['display_name']}\n")
        rows = re.findall(r"^\| \*\*(.+?)\*\*", page, re.MULTILINE)
        assert rows == [*node["inputs"], *(output["name"] for output in node["outputs"].values())]


@pytest.mark.parametrize("name", sorted(path.stem for path in DOCS.glob("*.md")))
def test_every_help_page_has_its_chinese(server, name):
    """The same outline, code, bold names and defaults; the locale's tooltips in the tables where the English page has them."""
    english = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    chinese = server.get(f"/extensions/otcache/docs/{name}/zh.md").decode()
    nodes = [load(language) for language in ("en", "zh")]
    theirs, ours = ([*node[name]["inputs"].values(), *node[name]["outputs"].values()] for node in nodes)

    tables = [re.findall(r"^\| \*\*(.+?)\*\* \| (.*) \|$", page, re.MULTILINE) for page in (english, chinese)]
    assert [label for label, _ in tables[1]] == [entry["name"] for entry in ours]
    for (_, said), (_, text), old, new in zip(*tables, theirs, ours, strict=True):
        assert text.startswith(new["tooltip"]) or not said.startswith(old["tooltip"])
    assert numbers_at_row_ends(chinese) == numbers_at_row_ends(english)

    titles = {nodes[0][key]["display_name"]: nodes[1][key]["display_name"] for key in nodes[0]}
    assert chinese.startswith(f"# {titles[english.partition(chr(10))[0].removeprefix('# ')]}\n")
    words = titles | {old["name"]: new["name"] for old, new in zip(theirs, ours, strict=True)}
    bold, code = r"\*\*(.+?)\*\*", r"`.+?`|\]\(.+?\)"
    english_bold = re.findall(bold, " ".join(english.split()))  # also what is broken between two lines
    assert sorted(re.findall(bold, chinese)) == sorted(words.get(word, word) for word in english_bold)
    assert sorted(re.findall(code, chinese)) == sorted(re.findall(code, english))
    outline = re.compile(r"^(?:#+ |\||- )", re.MULTILINE)
    assert outline.findall(chinese) == outline.findall(english)


def numbers_at_row_ends(page):
    """Of defaults and ranges, which stand in parentheses at the ends of table rows."""
    ends = re.findall(r"[(（]([^(（)）]*)[)）] \|$", page, re.MULTILINE)
    return [re.findall(r"-?\d+(?:\.\d+)?", end) for end in ends]


def presets(host):
    library = host.module("otcache_core.schedules.presets")
    return {"reference": library.preset("lemica-flux1-dev-15"), "anchor": library.preset("lemica-flux1-dev-10")}


def test_strip_data_survive_json_and_agree_with_the_nodes_own_choice(host):
    both = presets(host)
    (schedule, _), shown = host.run_with_ui("OTBudgetInterpolate", **both, budget=12)
    [data] = shown["otcache"]
    assert data == json.loads(json.dumps(data)) and data["asked"]["budget"] == schedule.budget == 12
    assert data["anchor"] == list(both["anchor"].compute_steps) and data["sigmas"] == list(both["reference"].sigmas)
    limits = {"start_percent", "end_percent", "max_skips", "forced"}
    assert set(data["asked"]) == {"budget", "choose", "target_error", "target_speedup"} | limits


@pytest.fixture
def judged(host):
    """Reference and anchor as `presets`, the anchor with errors measured at 11, 12 and 14."""
    both = presets(host)
    at = host.module("otcache_core.schedules.interpolation").schedule_at
    scored = [at(**both, budget=budget).replace(score=score) for budget, score in ((11, 0.05), (12, 0.03), (14, 0.03))]
    return both | {"anchor": both["anchor"].replace(metric="rmse", prepared=tuple(scored))}


@pytest.mark.parametrize(
    "asked, budget",
    [
        ({"choose": "by error", "target_error": 0.05}, 11),
        ({"choose": "by error", "target_error": 0.03}, 12),
        ({"choose": "by error", "target_error": 0.02}, 50),
        ({"choose": "by speed-up", "target_speedup": 4.0}, 12),
        ({"choose": "by speed-up", "target_speedup": 100.0}, 1),
        ({"choose": "by hand", "budget": 1000}, 50),
    ],
)
def test_the_budget_follows_the_target(host, judged, asked, budget):
    (schedule, _), shown = host.run_with_ui("OTBudgetInterpolate", **judged, **asked)
    assert schedule.budget == budget and len(schedule.compute_steps) == budget
    [data] = shown["otcache"]
    assert data["asked"].items() >= asked.items() and data["curve"] == [[11, 0.05], [12, 0.03], [14, 0.03]]


def test_no_budget_by_error_without_calibration(host):
    with pytest.raises(host.module("otcache_core.errors").OTCacheError, match="No error was measured.*by hand or by speed-up"):
        host.run("OTBudgetInterpolate", **presets(host), choose="by error")


def test_cached_sampler_tells_what_ran(host, demo):
    schedule = host.module("otcache_core.schedules.presets").preset("lemica-flux1-dev-10")
    _, shown = host.run_with_ui(
        "OTCachedSampler", model=demo.model, seed=1, steps=20, cfg=1.0, sampler_name="euler", scheduler="simple",
        positive=demo.positive, negative=demo.negative, latent_image=demo.latent, denoise=1.0, schedule=schedule,
    )  # fmt: skip
    [data] = shown["otcache"]
    assert data["steps"] == len(data["computed"]) == len(data["seconds"]) == 20
    assert data["evaluations"] == sum(data["computed"]) < 20 and data["measured"] > 1
    assert data == json.loads(json.dumps(data))
