"""What the browser is given: strips' data, locales, help pages."""

import json
import re
from pathlib import Path

import pytest

from tools.make_locales import node_definitions
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
        assert page.startswith(f"# {node['display_name']}\n")
        rows = re.findall(r"^\| \*\*(.+?)\*\*", page, re.MULTILINE)
        assert rows == [*node["inputs"], *(output["name"] for output in node["outputs"].values())]


def test_strip_data_survive_json_and_agree_with_the_nodes_own_choice(host):
    presets = host.module("otcache_core.presets")
    reference, anchor = (presets.preset(f"lemica-flux1-dev-{b}") for b in (15, 10))
    (schedule, _), shown = host.run_with_ui("OTBudgetInterpolate", reference=reference, anchor=anchor, budget=12)
    [data] = shown["otcache"]
    assert data == json.loads(json.dumps(data)) and data["budget"] == schedule.budget == 12
    assert data["anchor"] == list(anchor.compute_steps) and data["sigmas"] == list(reference.sigmas)


def test_cached_sampler_tells_what_ran(host, demo):
    schedule = host.module("otcache_core.presets").preset("lemica-flux1-dev-10")
    _, shown = host.run_with_ui(
        "OTCachedSampler", model=demo.model, seed=1, steps=20, cfg=1.0, sampler_name="euler", scheduler="simple",
        positive=demo.positive, negative=demo.negative, latent_image=demo.latent, denoise=1.0, schedule=schedule,
    )  # fmt: skip
    [data] = shown["otcache"]
    assert data["steps"] == len(data["computed"]) == len(data["seconds"]) == 20
    assert data["evaluations"] == sum(data["computed"]) < 20 and data["measured"] > 1
    assert data == json.loads(json.dumps(data))
