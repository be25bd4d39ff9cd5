"""The example workflows of version 0.1 (tests/host/saved/0.1) mean in today's frontend what they meant then."""

import json
from pathlib import Path

import pytest

SAVED = Path(__file__).resolve().parents[1] / "host" / "saved" / "0.1"
NAMES = ["otcache_demo", "otcache_flux_dev", "otcache_hunyuan_video", "otcache_qwen_image"]


@pytest.mark.parametrize("locale", ["en", "zh"])
def test_old_workflows_give_the_prompts_that_they_gave(open_comfy, locale):
    comfy = open_comfy(locale=locale)
    for name in NAMES:
        workflow, old = (json.loads((SAVED / f"{name}{end}.json").read_text(encoding="utf-8")) for end in ("", ".prompt"))
        comfy.load(workflow, name)
        _, now = comfy.documents()
        assert now.keys() == old.keys()
        for number, node in old.items():
            assert now[number]["class_type"] == node["class_type"]
            assert now[number]["inputs"].items() >= node["inputs"].items(), f"{name}: {node['class_type']}"
    assert comfy.complaints == []
