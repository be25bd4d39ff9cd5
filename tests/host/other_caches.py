"""How other caches take hold of a model, imitated in a few lines each: their pattern of calls, not their rules.

Each `skips(i)` says whether the i-th pass is to be left out; all skip alike here, so that what happens to ours is comparable.
"""

from unittest.mock import patch

import torch
from torch import nn


def every_third(i: int) -> bool:
    return i % 3 == 1


def whole_output(model, skips=every_third):
    """MagCache's like and CacheDiT: `model_function_wrapper` gives a stored output, and the model is not called."""
    kept = []

    def wrapper(apply, inputs):
        if skips(len(kept)):
            out = kept[-1]
        else:
            out = apply(inputs["input"], inputs["timestep"], **inputs["c"])
        kept.append(out)
        return out

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


def network_output(model, skips=every_third):
    """EasyCache's like under another key, Spectrum: a DIFFUSION_MODEL wrapper gives what it makes of stored outputs."""
    from comfy.patcher_extension import WrappersMP

    kept = []

    def wrapper(executor, x, *args, **kwargs):
        kept.append(kept[-1] if skips(len(kept)) else executor(x, *args, **kwargs))
        return kept[-1]

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "another cache", wrapper)
    return model


def residual_of_all_blocks(model, skips=every_third):
    """TeaCache: while the model is called the network's forward is another, which adds a stored residual to its input.

    Its own forward calls blocks and replacements as the network does; here the network itself does, its lists emptied.
    """
    network, kept = model.model.diffusion_model, []

    def wrapper(apply, inputs):
        x = inputs["input"]
        kept.append(None)
        with patch.object(network, "double_blocks", nn.ModuleList()), patch.object(network, "single_blocks", nn.ModuleList()):
            bare = apply(x.clone(), inputs["timestep"], **inputs["c"])
        if skips(len(kept) - 1):
            kept[-1] = kept[-2]
        else:
            kept[-1] = apply(x, inputs["timestep"], **inputs["c"]) - bare
        return bare + kept[-1]

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


class FirstBlock(nn.Module):
    """A list of blocks as one: the first runs always, the others unless their residual is to be used again."""

    def __init__(self, double, single, skips):
        super().__init__()
        self.pairs, self.joint, self.skips, self.kept = double, single, skips, []

    def forward(self, img, txt, **kwargs):
        img, txt = self.pairs[0](img=img, txt=txt, **kwargs)
        first = torch.cat((txt, img), 1)
        self.kept.append(None)
        if self.skips(len(self.kept) - 1):
            self.kept[-1] = self.kept[-2]
        else:
            for block in self.pairs[1:]:
                img, txt = block(img=img, txt=txt, **kwargs)
            both = torch.cat((txt, img), 1)
            for block in self.joint:
                both = block(both, **kwargs)
            self.kept[-1] = both - first
        txt, img = (first + self.kept[-1]).split((txt.shape[1], img.shape[1]), 1)
        return img, txt


def residual_after_the_first_block(model, skips=every_third):
    """WaveSpeed's FBCache: while the model is called, its lists of blocks are one of a single member that decides."""
    network = model.model.diffusion_model
    cached = nn.ModuleList([FirstBlock(network.double_blocks, network.single_blocks, skips)])

    def wrapper(apply, inputs):
        with patch.object(network, "double_blocks", cached), patch.object(network, "single_blocks", nn.ModuleList()):
            return apply(inputs["input"], inputs["timestep"], **inputs["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


def patched_blocks(model, skips=every_third):
    """Caches that stand for each block by `set_model_patch_replace`: a pass that is left out hands stored outputs on."""
    network, kept, count = model.model.diffusion_model, {}, [0]
    blocks = [("double_block", i) for i in range(len(network.double_blocks))]
    blocks += [("single_block", i) for i in range(len(network.single_blocks))]

    def stand_for(key):
        def block(args, extra):
            count[0] += key == blocks[0]
            if not skips(count[0] - 1):
                kept[key] = extra["original_block"](args)
            return kept[key]

        return block

    model = model.clone()
    for name, i in blocks:
        model.set_model_patch_replace(stand_for((name, i)), "dit", name, i)
    return model


def by_the_sampler(skips=every_third):
    """FSampler: a SAMPLER that does not ask for every evaluation, but makes the next step of the last one's velocity."""
    import comfy.samplers

    def fsampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            if not skips(i):
                d = (x - model(x, sigmas[i] * x.new_ones([len(x)]), **extra_args)) / sigmas[i]
            x = x + d * (sigmas[i + 1] - sigmas[i])
        return x

    return comfy.samplers.KSAMPLER(fsampler)


