"""What a long node shows while it works: through a server, as a browser hears it, and in process."""

import asyncio
import json
import re

import aiohttp
import pytest
from serving import filled

REFERENCE, ANCHOR = "OT Reference Schedule: ", "OT Anchor Search: "


@pytest.fixture
def progress(host):
    return host.module("nodes.host.progress").NodeProgress("title", "7")


@pytest.fixture
def stages(host):
    return host.module("otcache_core.calibration.forecast").observing(2, 50, 15, 15)


@pytest.fixture
def said(monkeypatch, progress):
    """What is said on the node from now on."""
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


def test_every_report_of_work_is_a_check_for_interruption(progress, stages):
    """Stages without evaluations, such as graphs of many steps, take seconds too."""
    import comfy.model_management as management

    with progress.work(stages):
        for report in (lambda: progress("graphs", 1, 450, ""), lambda: progress.tick(3)):
            report()
            management.interrupt_current_processing(True)
            with pytest.raises(management.InterruptProcessingException):
                report()
            report()  # once only


def test_how_work_ended_is_said(progress, stages, said):
    import comfy.model_management as management

    with pytest.raises(management.InterruptProcessingException), progress.work(stages):
        progress("record", 1, 2)
        raise management.InterruptProcessingException
    assert said[-1] == "cancelled (recording full runs, 1 of 2); queue again to go on"
    with pytest.raises(ValueError), progress.work(stages):
        raise ValueError
    assert said[-1].startswith("stopped by an error")
    with progress.work(stages):
        progress.done("15 of 50 evaluations")
    assert said[-1] == "done: 15 of 50 evaluations"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (40, "40 s"), (470, "8 min"), (9000, "2.5 h")])
def test_durations_are_words(host, seconds, words):
    assert host.module("nodes.host.progress").duration(seconds) == words


# -- through a server ----------------------------------------------------------------------------------------


def graph(server, trials, budget=3):
    return filled(server, {
        "demo": {"class_type": "OTDemoModel", "inputs": {}},
        "reference": {"class_type": "OTReferenceSchedule", "inputs": {
            "model": ["demo", 0], "positive": ["demo", 1], "negative": ["demo", 2], "latent_image": ["demo", 4], "steps": 10,
            "budget": 5}},
        "anchor": {"class_type": "OTAnchorSearch", "inputs": {
            "model": ["demo", 0], "vae": ["demo", 3], "calibration": ["reference", 1], "reference": ["reference", 0],
            "budget": budget, "trials": trials}},
        "save": {"class_type": "OTSaveSchedule", "inputs": {"schedule": ["anchor", 0], "name": "told", "overwrite": True}},
    })  # fmt: skip


async def listened(server, prompt, stop=None):
    """What a browser hears while `prompt` runs, in order: ("text", node, text) and ("bar", node, value, max).

    stop(text): whether to press cancel at this text of a node.
    """
    heard = []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=listener") as socket:
        answer = await session.post(f"{server.url}/prompt", json={"prompt": prompt, "client_id": "listener"})
        assert answer.status == 200, await answer.text()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                if message.data[:4] == b"\0\0\0\3":  # a text on a node
                    length = int.from_bytes(message.data[4:8], "big")
                    heard.append(("text", message.data[8 : 8 + length].decode(), message.data[8 + length :].decode()))
                    if stop and stop(heard[-1][2]):
                        await session.post(f"{server.url}/interrupt")
                continue
            news = json.loads(message.data)
            if news["type"] == "progress_state":
                heard += [("bar", node, state["value"], state["max"]) for node, state in news["data"]["nodes"].items()]
            elif news["type"] in ("execution_success", "execution_error", "execution_interrupted"):
                return heard
    raise AssertionError("the server hung up")


def heard_of(server, prompt, stop=None):
    heard = asyncio.run(listened(server, prompt, stop))
    texts = {node: [text for kind, name, text, *_ in heard if kind == "text" and name == node] for node in prompt}
    bars = {node: [entry[2] / entry[3] for entry in heard if entry[:2] == ("bar", node)] for node in prompt}
    return texts, bars


def test_both_nodes_say_what_they_do_and_how_long(server):
    texts, bars = heard_of(server, graph(server, 8))
    for node, title, stages, result in (
        ("reference", REFERENCE, ["recording full runs", "measuring how errors grow", "finding good steps by graph",
                                  "learning from short runs", "choosing the reference"], "5 of 10 evaluations"),
        ("anchor", ANCHOR, ["making the full runs' pictures", "searching the smallest budget", "preparing every budget",
                            "fitting the final weights"], "3 to 5 evaluations"),
    ):  # fmt: skip
        told = texts[node]
        assert all(text.startswith(title) for text in told)
        told = [text.removeprefix(title) for text in told]
        if node == "anchor":
            assert re.fullmatch(r"at most \d+ decoded pictures", told.pop(1))
        assert told[:2] == ["starting", "loading the model"] and told[-1] == f"done: {result}"
        shown = dict.fromkeys(stage for text in told[2:-1] for stage in stages if text.startswith(stage))
        assert list(shown) == stages, told
        assert any(re.search(r", about \d+(\.\d)? (s|min|h) left$", text) for text in told), told
        assert bars[node] == sorted(bars[node]) and bars[node][-1] == 1.0
        assert len({share for share in bars[node] if 0 < share < 1}) >= 5


def test_a_cancelled_search_says_so_and_goes_on_where_it_was(server):
    prompt = graph(server, 24)
    prompt["anchor"]["inputs"]["seed"] = 7
    texts, bars = heard_of(server, prompt, stop=lambda text: "trial 9 of 24" in text or "trial 10 of 24" in text)
    end = re.fullmatch(r"cancelled \(searching the smallest budget, trial (\d+) of 24, best .*\); queue again to go on",
                       texts["anchor"][-1].removeprefix(ANCHOR))  # fmt: skip
    assert end, texts["anchor"][-3:]
    reached = bars["anchor"][-1]
    assert 0.05 < reached < 0.9
    texts, bars = heard_of(server, prompt)
    told = [text.removeprefix(ANCHOR) for text in texts["anchor"]]
    assert told[0] == "starting", "the line of the cancelled run is gone"
    trials = [int(found[1]) for text in told if (found := re.search(r"trial (\d+) of 24", text))]
    assert trials[0] in (0, int(end[1])) and min(trial for trial in trials if trial) >= int(end[1])
    moved = [share for share in bars["anchor"] if share]
    assert moved[0] < reached + 0.15 and any(abs(share - reached) < 0.1 for share in moved[:4])
    assert bars["anchor"] == sorted(bars["anchor"]) and bars["anchor"][-1] == 1.0 and told[-1] == "done: 3 to 5 evaluations"


def test_a_refused_run_does_not_show_what_an_earlier_one_said(server):
    texts, _ = heard_of(server, graph(server, 8, budget=6))  # the anchor's budget is above the reference's
    assert texts["anchor"] in ([f"{ANCHOR}starting"], [])
