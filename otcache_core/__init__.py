"""OTCache core: step-caching schedules for diffusion samplers. Knows nothing of ComfyUI."""
