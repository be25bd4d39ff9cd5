"""The FLUX transformer, small: the maths and the keys of ComfyUI's ``comfy.ldm.flux.model.Flux``.

Own code, so that the library runs alone, yet the same weights file loads into ComfyUI's class. QK-norm
weights carry the BFL name ``.scale``; ComfyUI's loaders rename it where they need to.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIME_DIM = 256


@dataclass(frozen=True)
class FluxConfig:
    """Sizes, under the names of ComfyUI's ``FluxParams`` (``in_channels`` before patching)."""

    in_channels: int = 16
    out_channels: int = 16
    vec_in_dim: int = 64
    context_in_dim: int = 64
    hidden_size: int = 128
    mlp_ratio: float = 4.0
    num_heads: int = 1
    depth: int = 2
    depth_single_blocks: int = 4
    axes_dim: tuple[int, ...] = (16, 56, 56)
    theta: int = 10000
    patch_size: int = 2

    def comfy_params(self) -> dict:
        """Keyword arguments that make ComfyUI's ``Flux`` the same network."""
        extra = {"qkv_bias": True, "guidance_embed": False, "txt_ids_dims": []}
        return asdict(self) | {"axes_dim": list(self.axes_dim)} | extra


def timestep_embedding(t: Tensor, dim: int = TIME_DIM, max_period: float = 10000.0) -> Tensor:
    """Sinusoids of ``1000 * t``, cosines first: [B] in [0, 1] -> [B, dim] float32."""
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    args = (1000.0 * t.float())[:, None] * freqs
    return torch.cat((args.cos(), args.sin()), dim=-1)


@torch.compiler.assume_constant_result
def rope_table(
    text: int, rows: int, cols: int, axes: tuple[int, ...], theta: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each [text + rows * cols, sum(axes) / 2] float32, from float64 angles as in ComfyUI.

    Text tokens stand at (0, 0, 0), patches at (0, row, col). Cached: do not write to the result.
    """
    return _rope_table(text, rows, cols, axes, theta, device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a table first asked for while sampling must still serve training
def _rope_table(text, rows, cols, axes, theta, device):
    ids = torch.zeros(text + rows * cols, len(axes), dtype=torch.float64)
    ids[text:, 1] = torch.arange(rows, dtype=torch.float64).repeat_interleave(cols)
    ids[text:, 2] = torch.arange(cols, dtype=torch.float64).repeat(rows)
    angles = []
    for axis, dim in enumerate(axes):
        omega = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles.append(ids[:, axis, None] * omega)
    angle = torch.cat(angles, dim=-1)
    return angle.cos().float().to(device), angle.sin().float().to(device)


def apply_rope(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate neighbouring channel pairs of ``x`` [B, heads, L, D] by the table's angles; keeps the dtype."""
    cos, sin = rope
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((cos * even - sin * odd, sin * even + cos * odd), dim=-1).flatten(-2).to(x.dtype)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return (1 + scale) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + shift


class _Embedder(nn.Module):
    def __init__(self, dim_in: int, dim: int):
        super().__init__()
        self.in_layer = nn.Linear(dim_in, dim)
        self.out_layer = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class _RMSNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + 1e-6) * self.scale).to(x.dtype)


class _QKNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.query_norm = _RMSNorm(dim)
        self.key_norm = _RMSNorm(dim)


class _Modulation(nn.Module):
    def __init__(self, dim: int, parts: int):
        super().__init__()
        self.parts = parts
        self.lin = nn.Linear(dim, parts * dim)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.lin(F.silu(vec))[:, None].chunk(self.parts, dim=-1)


def _heads(qkv: Tensor, norm: _QKNorm, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """[B, L, 3 * dim] -> normed q, k and plain v, each [B, heads, L, head_dim]."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return norm.query_norm(q), norm.key_norm(k), v


def _attend(q: Tensor, k: Tensor, v: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    out = F.scaled_dot_product_attention(apply_rope(q, rope), apply_rope(k, rope), v)
    return out.transpose(1, 2).flatten(2)


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.norm = _QKNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)


def _mlp(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, dim))


class _DoubleBlock(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        for stream in ("img", "txt"):
            self.add_module(f"{stream}_mod", _Modulation(dim, 6))
            self.add_module(f"{stream}_attn", _Attention(dim, heads))
            self.add_module(f"{stream}_mlp", _mlp(dim, hidden))

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, rope) -> tuple[Tensor, Tensor]:
        i_shift, i_scale, i_gate, i_shift2, i_scale2, i_gate2 = self.img_mod(vec)
        t_shift, t_scale, t_gate, t_shift2, t_scale2, t_gate2 = self.txt_mod(vec)
        img_qkv = _heads(self.img_attn.qkv(_modulate(img, i_shift, i_scale)), self.img_attn.norm, self.heads)
        txt_qkv = _heads(self.txt_attn.qkv(_modulate(txt, t_shift, t_scale)), self.txt_attn.norm, self.heads)
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(txt_qkv, img_qkv, strict=True))
        attn_txt, attn_img = _attend(q, k, v, rope).split((txt.shape[1], img.shape[1]), dim=1)
        img = img + i_gate * self.img_attn.proj(attn_img)
        img = img + i_gate2 * self.img_mlp(_modulate(img, i_shift2, i_scale2))
        txt = txt + t_gate * self.txt_attn.proj(attn_txt)
        txt = txt + t_gate2 * self.txt_mlp(_modulate(txt, t_shift2, t_scale2))
        return img, txt


class _SingleBlock(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int):
        super().__init__()
        self.heads, self.split = heads, (3 * dim, hidden)
        self.linear1 = nn.Linear(dim, 3 * dim + hidden)
        self.linear2 = nn.Linear(dim + hidden, dim)
        self.norm = _QKNorm(dim // heads)
        self.modulation = _Modulation(dim, 3)

    def forward(self, x: Tensor, vec: Tensor, rope) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        qkv, mlp = self.linear1(_modulate(x, shift, scale)).split(self.split, dim=-1)
        attn = _attend(*_heads(qkv, self.norm, self.heads), rope)
        return x + gate * self.linear2(torch.cat((attn, F.gelu(mlp, approximate="tanh")), dim=-1))


class _LastLayer(nn.Module):
    def __init__(self, dim: int, out: int):
        super().__init__()
        self.linear = nn.Linear(dim, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        return self.linear(_modulate(x, shift, scale))


class FluxTransformer(nn.Module):
    """FLUX.1 without guidance embedding; modulations and head start at zero to keep early training calm."""

    def __init__(self, config: FluxConfig | None = None):
        super().__init__()
        self.config = c = config or FluxConfig()
        if sum(c.axes_dim) * c.num_heads != c.hidden_size:
            raise ValueError(f"{c.num_heads} x axes_dim {c.axes_dim} do not fill hidden_size {c.hidden_size}")
        dim, hidden, area = c.hidden_size, int(c.hidden_size * c.mlp_ratio), c.patch_size**2
        self.img_in = nn.Linear(c.in_channels * area, dim)
        self.txt_in = nn.Linear(c.context_in_dim, dim)
        self.time_in = _Embedder(TIME_DIM, dim)
        self.vector_in = _Embedder(c.vec_in_dim, dim)
        self.double_blocks = nn.ModuleList(_DoubleBlock(dim, c.num_heads, hidden) for _ in range(c.depth))
        self.single_blocks = nn.ModuleList(
            _SingleBlock(dim, c.num_heads, hidden) for _ in range(c.depth_single_blocks)
        )
        self.final_layer = _LastLayer(dim, c.out_channels * area)
        for name, parameter in self.named_parameters():
            if "mod.lin" in name or "modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor, y: Tensor) -> Tensor:
        """Velocity ``noise - x0`` [B, C, H, W] at ``x = sigma * noise + (1 - sigma) * x0`` [B, C, H, W].

        ``sigma`` [B] in [0, 1], ``context`` [B, T, context_in_dim], ``y`` [B, vec_in_dim]; one float dtype.
        Raises ValueError when H or W is not a multiple of the patch size.
        """
        c, p = self.config, self.config.patch_size
        if x.shape[-2] % p or x.shape[-1] % p:
            raise ValueError(f"latent {tuple(x.shape[-2:])} is not a multiple of the patch size {p}")
        rows, cols = x.shape[-2] // p, x.shape[-1] // p
        # pixel_unshuffle's channel order (c, ph, pw) is FLUX's patch order
        img = self.img_in(F.pixel_unshuffle(x, p).flatten(2).transpose(1, 2))
        vec = self.time_in(timestep_embedding(sigma).to(x.dtype)) + self.vector_in(y)
        txt = self.txt_in(context)
        rope = rope_table(txt.shape[1], rows, cols, c.axes_dim, c.theta, x.device)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, rope)
        joint = torch.cat((txt, img), dim=1)
        for block in self.single_blocks:
            joint = block(joint, vec, rope)
        out = self.final_layer(joint[:, txt.shape[1] :], vec)
        return F.pixel_shuffle(out.transpose(1, 2).unflatten(2, (rows, cols)), p)
