"""The only code that knows ComfyUI's inside: hooks, models, recording and generating through its samplers."""
