"""What nodes send to be shown on themselves: OT Load Schedule, OT Save Schedule, OT Compare."""

import json
import urllib.parse
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def test_saving_says_where_from_comfyuis_folder_on_and_what(host, tmp_path):
    presets = host.module("otcache_core.schedules.presets")
    anchor, inner = presets.preset("lemica-flux1-dev-10"), presets.preset("lemica-flux1-dev-15")
    anchor = anchor.replace(prepared=(anchor, inner))
    _, shown = host.run_with_ui("OTSaveSchedule", schedule=anchor, name="told", overwrite=True)
    assert shown["otcache"] == [{"kind": "saved", "path": "models/otcache_schedules/told.json", "steps": 50, "budget": 10,
                                 "budgets": [10, 15], "model": "FLUX.1 [dev]"}]  # fmt: skip
    Path(shown["text"][0]).unlink()
    elsewhere = tmp_path / "x.json"
    assert host.module("nodes.saved_schedules").shown_path(elsewhere) == str(elsewhere)


def test_comparing_shows_the_worst_pictures_first(host):
    import folder_paths

    full = torch.full((10, 16, 16, 3), 0.5)
    cached = full + torch.linspace(0, 0.09, 10)[:, None, None, None]
    (text, _, beside), shown = host.run_with_ui("OTCompare", cached=cached, full=full)
    assert shown["otcache"] == [{"kind": "compared", "text": text}] and shown["text"] == (text,) and len(shown["images"]) == 8
    for image, number in zip(shown["images"][:2], (9, 8), strict=True):
        picture = np.asarray(Image.open(Path(folder_paths.get_temp_directory(), image["subfolder"], image["filename"])))
        assert np.abs(picture / 255 - beside[number].numpy()).max() < 0.01


def test_the_browser_can_ask_what_a_name_stands_for(server):
    def ask(name):
        return json.loads(server.get(f"/otcache/schedule?name={urllib.parse.quote(name)}"))

    found = ask("lemica-flux1-dev-15")
    assert sum(found["computed"]) == 15 and len(found["computed"]) == 50 == len(found["sigmas"]) - 1
    assert (found["model"], found["shift"], found["budgets"]) == ("FLUX.1 [dev]", 3.158, None) and "LeMiCa" in found["source"]
    for name in ("", "../../x.json", "/etc/passwd", "learnt: nothing", "x" * 5000):
        assert set(ask(name)) == {"kind", "problem"} and len(ask(name)["problem"]) < 400
