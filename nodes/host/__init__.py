"""The only code that knows how ComfyUI samples inside: hooks, models, recording and generating through its samplers.

Read `attach.with_cache` first, which puts the hooks on a model, then `run.HostRun.predict_noise`, which skips.
"""
