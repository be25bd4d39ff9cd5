"""The demo transformer against a naive second opinion, and its weights file."""

import math

import numpy as np
import pytest
import torch
from safetensors import safe_open

from otcache_core.demo.model import FluxConfig, FluxTransformer, apply_rope, rope_table
from otcache_core.demo.stored import WEIGHTS


def comfy_shapes() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of ComfyUI's Flux under BFL's names, written out by hand."""
    linear = {
        "img_in": (128, 64),
        "txt_in": (128, 64),
        "time_in.in_layer": (128, 256),
        "time_in.out_layer": (128, 128),
        "vector_in.in_layer": (128, 64),
        "vector_in.out_layer": (128, 128),
        "final_layer.linear": (64, 128),
        "final_layer.adaLN_modulation.1": (256, 128),
    }
    norms = []
    for i in range(2):
        for s in ("img", "txt"):
            block = f"double_blocks.{i}.{s}"
            linear |= {f"{block}_mod.lin": (768, 128), f"{block}_attn.qkv": (384, 128)}
            linear |= {f"{block}_mlp.0": (512, 128), f"{block}_mlp.2": (128, 512)}
            linear[f"{block}_attn.proj"] = (128, 128)
            norms.append(f"{block}_attn.norm")
    for i in range(4):
        block = f"single_blocks.{i}"
        linear |= {f"{block}.linear1": (896, 128), f"{block}.linear2": (128, 640)}
        linear[f"{block}.modulation.lin"] = (384, 128)
        norms.append(f"{block}.norm")
    shapes = {f"{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    return shapes | {f"{norm}.{which}_norm.scale": (128,) for norm in norms for which in ("query", "key")}


def random_model() -> FluxTransformer:
    """A model without the zeros it starts training from."""
    torch.manual_seed(7)
    model = FluxTransformer()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.06 * torch.randn(p.shape) + float(p.ndim == 1))
    return model.eval()


def silu(v):
    return v / (1 + np.exp(-v))


def gelu(v):
    return 0.5 * v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))


def norm(v):
    return (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-6)


def naive_forward(w: dict, x, sigma, context, y):
    """FLUX for one sample, in float64, token by token where the model is vectorised."""

    def lin(v, name):
        return v @ w[name + ".weight"].T + w[name + ".bias"]

    def rms(v, name):
        return v / np.sqrt((v * v).mean(-1, keepdims=True) + 1e-6) * w[name + ".scale"]

    def embed(v, name):
        return lin(silu(lin(v, name + ".in_layer")), name + ".out_layer")

    channels, height, width = x.shape
    positions = [(0, 0, 0)] * len(context)
    tokens = []
    for row in range(height // 2):
        for col in range(width // 2):
            positions.append((0, row, col))
            places = [(c, 2 * row + a, 2 * col + b) for c in range(channels) for a in (0, 1) for b in (0, 1)]
            tokens.append([x[place] for place in places])
    phases = []
    for position in positions:
        axes = zip(position, (16, 56, 56), strict=True)
        turn = [p / 10000 ** (2 * k / d) for p, d in axes for k in range(d // 2)]
        phases.append(np.exp(1j * np.array(turn)))
    phases = np.array(phases)

    def rotate(v):
        z = (v[:, 0::2] + 1j * v[:, 1::2]) * phases
        return np.stack((z.real, z.imag), -1).reshape(v.shape)

    def attend(q, k, v):
        scores = np.exp(rotate(q) @ rotate(k).T / math.sqrt(128))
        return scores / scores.sum(-1, keepdims=True) @ v

    angles = 1000 * sigma * 10000 ** (-np.arange(128) / 128)
    vec = embed(np.concatenate((np.cos(angles), np.sin(angles))), "time_in") + embed(y, "vector_in")
    img, txt = lin(np.array(tokens), "img_in"), lin(context, "txt_in")
    for i in range(2):
        name = f"double_blocks.{i}."
        mods = {s: lin(silu(vec), f"{name}{s}_mod.lin").reshape(6, 128) for s in ("img", "txt")}
        parts = []
        for s, h in (("txt", txt), ("img", img)):
            q, k, v = np.split(lin(norm(h) * (1 + mods[s][1]) + mods[s][0], f"{name}{s}_attn.qkv"), 3, -1)
            at = f"{name}{s}_attn.norm."
            parts.append((rms(q, at + "query_norm"), rms(k, at + "key_norm"), v))
        attn = attend(*(np.concatenate(pair) for pair in zip(*parts, strict=True)))
        out = {}
        for s, h, a in (("txt", txt, attn[: len(txt)]), ("img", img, attn[len(txt) :])):
            h = h + mods[s][2] * lin(a, f"{name}{s}_attn.proj")
            inner = gelu(lin(norm(h) * (1 + mods[s][4]) + mods[s][3], f"{name}{s}_mlp.0"))
            out[s] = h + mods[s][5] * lin(inner, f"{name}{s}_mlp.2")
        img, txt = out["img"], out["txt"]
    h = np.concatenate((txt, img))
    for i in range(4):
        name = f"single_blocks.{i}."
        shift, scale, gate = lin(silu(vec), name + "modulation.lin").reshape(3, 128)
        q, k, v, mlp = np.split(lin(norm(h) * (1 + scale) + shift, name + "linear1"), (128, 256, 384), -1)
        attn = attend(rms(q, name + "norm.query_norm"), rms(k, name + "norm.key_norm"), v)
        h = h + gate * lin(np.concatenate((attn, gelu(mlp)), -1), name + "linear2")
    shift, scale = lin(silu(vec), "final_layer.adaLN_modulation.1").reshape(2, 128)
    flat = lin(norm(h[len(txt) :]) * (1 + scale) + shift, "final_layer.linear")
    out = flat.reshape(height // 2, width // 2, channels, 2, 2)
    return out.transpose(2, 0, 3, 1, 4).reshape(channels, height, width)


def test_keys_and_shapes_are_comfys():
    assert {k: tuple(v.shape) for k, v in FluxTransformer().state_dict().items()} == comfy_shapes()


def test_forward_equals_the_naive_one():
    model = random_model()
    x, context, y = torch.randn(2, 16, 6, 8), torch.randn(2, 3, 64), torch.randn(2, 64)
    sigma = torch.tensor([0.83, 0.21])
    with torch.no_grad():
        got = model(x, sigma, context, y).double().numpy()
    w = {k: v.double().numpy() for k, v in model.state_dict().items()}
    for i in range(2):
        inputs = (part[i].double().numpy() for part in (x, sigma, context, y))
        want = naive_forward(w, *inputs)
        assert np.abs(got[i] - want).max() < 1e-4 * np.abs(want).max()


def test_rope_is_relative_and_leaves_text_alone():
    table = rope_table(2, 5, 5, (16, 56, 56), 10000, torch.device("cpu"))
    q, k = torch.randn(1, 1, 1, 128).expand(1, 1, 27, 128), torch.randn(1, 1, 1, 128).expand(1, 1, 27, 128)
    rq, rk = apply_rope(q, table)[0, 0], apply_rope(k, table)[0, 0]
    assert torch.equal(rq[:2], q[0, 0, :2])

    def at(row, col):
        return 2 + 5 * row + col

    assert torch.allclose(rq[at(0, 1)] @ rk[at(2, 2)], rq[at(2, 3)] @ rk[at(4, 4)], atol=1e-4)
    assert not torch.allclose(rq[at(0, 1)] @ rk[at(2, 2)], rq[at(0, 1)] @ rk[at(2, 3)], atol=1e-2)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="patch size"):
        FluxTransformer()(torch.zeros(1, 16, 5, 4), torch.ones(1), torch.zeros(1, 1, 64), torch.zeros(1, 64))
    with pytest.raises(ValueError, match="hidden_size"):
        FluxTransformer(FluxConfig(hidden_size=64))


def test_weights_are_small_and_say_where_they_come_from():
    assert sum(p.stat().st_size for p in WEIGHTS.iterdir()) <= 8 * 2**20
    with safe_open(WEIGHTS / "transformer.safetensors", "pt") as file:
        assert set(file.keys()) == set(comfy_shapes())
        assert int(file.metadata()["steps"]) > 0 and float(file.metadata()["loss"]) > 0
