"""Saved workflows and prompts keep working: no input or output is removed, moved or retyped unawares."""

import copy
import json

import pytest

from tools.node_contract import FILE, breaks, contract

KNOWN = json.loads(FILE.read_text(encoding="utf-8"))


def test_nodes_keep_what_workflows_hold_on_to(server):
    now = contract(server.object_info())
    assert breaks(KNOWN, now) == [], "saved workflows break; if that is meant, run: python -m tools.node_contract --break"
    assert now == KNOWN, "something is new; run: python -m tools.node_contract"


def test_what_is_added_last_breaks_nothing():
    now = copy.deepcopy(KNOWN)
    new = {"name": "new", "type": "INT", "required": False, "widget": True, "control": False}
    now["OTBudgetInterpolate"]["inputs"].append(new)
    now["OTBudgetInterpolate"]["outputs"].append("INT")
    now["OTNew"] = {"inputs": [], "outputs": []}
    assert breaks(KNOWN, now) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda nodes: nodes.pop("OTCompare"), "OTCompare is gone"),
        (lambda nodes: nodes["OTCompare"]["inputs"].pop(0), "has no input cached any more"),
        (lambda nodes: nodes["OTCompare"]["outputs"].pop(), "gave"),
        (lambda nodes: nodes["OTCompare"]["outputs"].reverse(), "gave"),
        (lambda nodes: nodes["OTCompare"]["inputs"][0].update(type="LATENT"), "cached was IMAGE and is LATENT"),
        (lambda nodes: nodes["OTCompare"]["inputs"].reverse(), "its widgets were"),
        (lambda nodes: nodes["OTDemoModel"]["inputs"][0]["choices"].pop(), "sky has no choice"),
        (lambda nodes: nodes["OTDemoModel"]["inputs"][0].update(widget=False), "sky takes another place"),
        (lambda nodes: nodes["OTCachedSampler"]["inputs"][1].update(control=False), "seed takes another place"),
        (lambda nodes: nodes["OTCachedSampler"]["inputs"][2].update(max=100), "steps takes less"),
        (lambda nodes: nodes["OTCachedSampler"]["inputs"][2].update(min=2), "steps takes less"),
        (lambda nodes: nodes["OTDemoModel"]["inputs"].insert(
            0, {"name": "new", "type": "INT", "required": False, "widget": True}), "its widgets were"),
        (lambda nodes: nodes["OTDemoModel"]["inputs"].append(
            {"name": "new", "type": "INT", "required": True, "widget": True}), "it must be optional"),
    ],
)  # fmt: skip
def test_what_breaks_is_told(change, words):
    now = copy.deepcopy(KNOWN)
    change(now)
    [sentence] = breaks(KNOWN, now)
    assert words in sentence
