"""What OT Anchor Search sends to the browser while it works."""

import asyncio
import io
import json
import struct

import numpy as np
import pytest

SEARCH, LAST = "3", "4"
PREVIEW_WITH_METADATA = 4  # ComfyUI's number of that binary message
GRAPH = {
    "1": {"class_type": "OTDemoModel", "inputs": {}},
    "2": {"class_type": "OTReferenceSchedule", "inputs": {
        "model": ["1", 0], "positive": ["1", 1], "negative": ["1", 2], "latent_image": ["1", 4], "steps": 12, "cases": 1,
        "budget": 5, "seed": 7}},
    SEARCH: {"class_type": "OTAnchorSearch", "inputs": {
        "model": ["1", 0], "vae": ["1", 3], "calibration": ["2", 1], "reference": ["2", 0], "budget": 3, "trials": 12}},
    LAST: {"class_type": "PreviewImage", "inputs": {"images": [SEARCH, 1]}},
}  # fmt: skip


def with_defaults(graph: dict, info: dict) -> dict:
    """`graph` with the defaults of all widgets that it leaves out."""
    filled = {}
    for number, node in graph.items():
        declared = info[node["class_type"]]["input"]
        inputs = dict(node["inputs"])
        for name, (kind, *rest) in (declared.get("required", {}) | declared.get("optional", {})).items():
            options = rest[0] if rest else {}
            if name not in inputs and ("default" in options or isinstance(kind, list)):
                inputs[name] = options.get("default", kind[0])
        filled[number] = node | {"inputs": inputs}
    return filled


async def listen(server, graph: dict) -> list[tuple[str, tuple[dict, bytes]]]:
    """(running node, (metadata, image)) of every preview that is sent until the prompt's end."""
    import aiohttp

    told, running = [], ""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=test") as socket:
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        async with session.post(f"{server.url}/prompt", json={"prompt": graph, "client_id": "test"}) as answer:
            assert answer.status == 200, await answer.text()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                kind, length = struct.unpack(">II", message.data[:8])
                if kind == PREVIEW_WITH_METADATA:
                    told.append((running, (json.loads(message.data[8 : 8 + length]), message.data[8 + length :])))
                continue
            event = json.loads(message.data)
            assert event["type"] not in ("execution_error", "execution_interrupted"), event
            if event["type"] == "executing":
                running = event["data"]["node"]
                if running is None:
                    return told
    raise AssertionError("the server closed the connection")


@pytest.fixture(scope="module")
def previews(server):
    """(running node, (metadata, picture uint8 [H, W, 3])) of every preview of one run."""
    from PIL import Image

    told = asyncio.run(asyncio.wait_for(listen(server, with_defaults(GRAPH, server.object_info())), 240))
    return [(node, (facts, np.asarray(Image.open(io.BytesIO(data)), dtype=int))) for node, (facts, data) in told]


def test_pictures_arrive_on_the_node_while_it_searches(previews):
    assert len(previews) >= 3
    for running, (facts, picture) in previews:
        assert running == facts["node_id"] == facts["display_node_id"] == SEARCH and facts["image_type"] == "image/jpeg"
        assert picture.shape == (460, 640, 3)
    pictures = [picture for _, (_, picture) in previews]
    assert all(np.abs(a - b).max() > 100 for a, b in zip(pictures, pictures[1:], strict=False))


def test_the_full_picture_stays_and_the_best_one_comes_nearer(previews):
    """The upper one is the full run's; the last preview is of the budgets' chart and keeps the pictures."""
    full, best = ([picture[top : top + 192, 12:204] for _, (_, picture) in previews] for top in (36, 256))
    assert all(np.abs(picture - full[0]).mean() < 3 for picture in full)
    errors = [float(np.abs(a - b).mean()) for a, b in zip(best, full, strict=True)]
    assert errors[0] > errors[-1] > 0.5 and full[0].std() > 20 and best[-1].std() > 20
