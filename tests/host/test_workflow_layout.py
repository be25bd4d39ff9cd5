"""Example workflows and the blueprint can be read at once: nothing overlaps, and no wire runs behind a node."""

from itertools import combinations

import pytest
from PIL import Image, ImageStat
from workflows import NAMES, load, load_blueprint

from tools.api_graph import FRONTEND_ONLY
from tools.make_workflows import FOLDER

TITLE, SLOT = 30, 20  # pixels in the frontend
every_workflow = pytest.mark.parametrize("name", NAMES)


@every_workflow
def test_nodes_stand_apart(name):
    workflow = load(name)
    assert [node["type"] for node in workflow["nodes"]].count("MarkdownNote") == 1
    stands_apart(workflow)


def test_nodes_of_the_blueprint_stand_apart():
    [definition] = load_blueprint()["definitions"]["subgraphs"]
    edges = [{"id": definition[end]["id"], "type": end, "pos": definition[end]["bounding"][:2],
              "size": definition[end]["bounding"][2:]} for end in ("inputNode", "outputNode")]  # fmt: skip
    stands_apart({"nodes": definition["nodes"] + edges, "groups": definition["groups"]})


def stands_apart(workflow):
    """No two nodes overlap, no two groups do, and every node that has one stands in its group."""
    boxes = {(node["id"], node["type"]): box_of(node) for node in workflow["nodes"]}
    for (a, box), (b, other) in combinations(boxes.items(), 2):
        apart = box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
        assert apart, f"{a} and {b} overlap"
    groups = [(x, y, x + width, y + height) for x, y, width, height in (g["bounding"] for g in workflow["groups"])]
    for a, b in combinations(groups, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    for (number, kind), (left, top, right, bottom) in boxes.items():
        inside = [g for g in groups if g[0] <= left and g[1] <= top and right <= g[2] and bottom <= g[3]]
        alone = kind in FRONTEND_ONLY or number < 0
        assert len(inside) == (0 if alone else 1), f"{kind} {number} stands in {len(inside)} groups"


def box_of(node):
    """Left, top, right and bottom, the title included."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


@every_workflow
def test_wires_run_to_the_right_and_behind_no_node(name):
    workflow = load(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, source, output, target, slot, kind in workflow["links"]:
        start = nodes[source]["pos"][0] + nodes[source]["size"][0], height(nodes[source], output)
        end = nodes[target]["pos"][0], height(nodes[target], slot)
        wire = f"{kind} from {nodes[source]['type']} {source} to {nodes[target]['type']} {target}"
        assert start[0] < end[0], f"{wire} runs to the left"
        for x, y in spline(start, end):
            for node in nodes.values():
                left, top, right, bottom = box_of(node)
                assert not (left < x < right and top < y < bottom), f"{wire} runs behind {node['type']} {node['id']}"


def height(node, slot):
    """Where a wire meets a node: the middle of its slot."""
    return node["pos"][1] + (slot + 0.7) * SLOT


def spline(start, end, points=200):
    """What the frontend draws: a cubic curve that leaves and arrives horizontally."""
    (x0, y0), (x1, y1) = start, end
    pull = 0.25 * ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    for t in (i / points for i in range(1, points)):
        a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
        yield a * x0 + b * (x0 + pull) + c * (x1 - pull) + d * x1, (a + b) * y0 + (c + d) * y1


@pytest.mark.parametrize("name, width, height", [
    ("otcache_start", 1400, 900), ("otcache_demo", 1920, 950), ("otcache_flux_dev", 1920, 950),
    ("otcache_hunyuan_video", 1920, 950), ("otcache_qwen_image", 1920, 950), ("otcache_z_image", 1920, 950),
    ("otcache_wan2_2_t2v", 1920, 950), ("otcache_calibrate", 1920, 950),
])  # fmt: skip
def test_opens_at_a_zoom_one_can_read(name, width, height):
    """The frontend fits a template's nodes into three quarters of the page, and draws no text below a zoom of 4/7."""
    boxes = list(zip(*map(box_of, load(name)["nodes"]), strict=True))
    across, down = max(boxes[2]) - min(boxes[0]) + 20, max(boxes[3]) - min(boxes[1]) + 20
    assert 0.75 * min(width / across, height / down) >= 4 / 7


@every_workflow
def test_thumbnail(name):
    path = FOLDER / f"{name}.jpg"
    with Image.open(path) as image:
        assert image.format == "JPEG" and min(image.size) >= 400
        grey, (width, height) = image.convert("L"), image.size
        badge = grey.crop((0, 0, width // 2, height // 8))  # the frontend's lies over the picture: nothing to read there
        assert ImageStat.Stat(badge).stddev[0] < 40
        edges = (0, 0, width, 8), (0, height - 8, width, height), (0, 0, 8, height), (width - 8, 0, width, height)
        assert all(ImageStat.Stat(grey.crop(edge)).mean[0] < 200 for edge in edges)  # no white sheet on a dark page
    assert path.stat().st_size < 150_000
