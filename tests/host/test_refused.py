"""What can be known beforehand is refused before anything runs, and an error is its sentence alone."""

import pytest
from test_auto_cache_server import filled

LOAD = {"class_type": "OTLoadSchedule", "inputs": {"schedule": "lemica-flux1-dev-10"}}
DEMO = {"class_type": "OTDemoModel", "inputs": {}}


def refusal(server, graph, node):
    """The details of the one error of `node`, after which nothing was queued."""
    answer = server.post("/prompt", {"prompt": filled(server, graph)})
    assert answer.get("http_error") == 400, answer
    return {error["details"] for error in answer["node_errors"][node]["errors"]}


def reference(**inputs):
    return {"class_type": "OTReferenceSchedule", "inputs": {
        "model": ["demo", 0], "positive": ["demo", 1], "negative": ["demo", 2], "latent_image": ["demo", 4],
        "steps": 12, "cases": 1, "budget": 5} | inputs}  # fmt: skip


def save(**inputs):
    return {"class_type": "OTSaveSchedule", "inputs": {"schedule": ["schedule", 0]} | inputs}


def test_a_broken_schedule_file(server):
    path = server.base / "models" / "otcache_schedules" / "broken.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"sigmas": [1, 0], "compute_steps": [3]}')
    graph = {"schedule": {"class_type": "OTLoadSchedule", "inputs": {"schedule": "broken.json"}}, "save": save()}
    [told] = refusal(server, graph, "schedule")
    assert told.startswith("schedule - broken.json: compute_steps must start with step 0")


@pytest.mark.parametrize("name", ["../x", "con", "a*b", ""])
def test_a_name_that_is_no_file_name(server, name):
    [told] = refusal(server, {"schedule": LOAD, "save": save(name=name)}, "save")
    assert "cannot be a schedule's file name" in told


@pytest.mark.parametrize("inputs, said", [
    ({"budget": 12}, "The budget is 12, but the run has 12 steps"),
    ({"budget": 1}, "budget is 1, but must be from 2 to 1000."),
    ({"steps": 1001}, "steps is 1001, but must be from 3 to 1000."),
])  # fmt: skip
def test_a_reference_that_cannot_be(server, inputs, said):
    graph = {"demo": DEMO, "schedule": reference(**inputs), "save": save()}
    assert all(said in told for told in refusal(server, graph, "schedule"))


def test_good_ones_and_those_that_other_nodes_give_are_let_pass(server):
    """A name from a node is not known before that has run."""
    name = {"class_type": "StringConcatenate", "inputs": {"string_a": "from", "string_b": "node", "delimiter": "_"}}
    graph = {"schedule": LOAD, "name": name, "save": save(name=["name", 0])}
    server.run(filled(server, graph))
    assert (server.base / "models" / "otcache_schedules" / "from_node.json").is_file()


def test_a_search_above_its_reference_is_told_before_the_runs_are_recorded(server):
    graph = {
        "demo": DEMO, "schedule": reference(),
        "search": {"class_type": "OTAnchorSearch", "inputs": {
            "model": ["demo", 0], "vae": ["demo", 3], "calibration": ["schedule", 1], "reference": ["schedule", 0],
            "budget": 5}},
        "show": {"class_type": "PreviewAny", "inputs": {"source": ["search", 2]}},
    }  # fmt: skip
    error = failure(server, graph)
    assert error["node_id"] == "schedule"  # not the search
    assert error["exception_message"].startswith("The anchor's budget 5 must be below the reference's 5; lower it.")


def test_swapped_schedules_say_so_and_the_sentence_stands_alone(server):
    graph = {
        "small": LOAD, "large": {"class_type": "OTLoadSchedule", "inputs": {"schedule": "lemica-flux1-dev-26"}},
        "slider": {"class_type": "OTBudgetInterpolate", "inputs": {"reference": ["small", 0], "anchor": ["large", 0]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["slider", 1]}},
    }  # fmt: skip
    error = failure(server, graph)
    assert error["exception_type"] == "OTCache"  # the frontend shows it before the sentence
    assert error["exception_message"].strip() == (
        "The anchor has 26 evaluations and the reference 10, but the anchor must be below the reference; exchange the two."
    )


def failure(server, graph):
    status = server.wait(server.queue(filled(server, graph)))["status"]
    [error] = [data for kind, data in status["messages"] if kind == "execution_error"]
    return error
