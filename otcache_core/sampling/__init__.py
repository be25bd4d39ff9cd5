"""How a cached run goes: which steps run the model, and what the skipped ones use instead.

Read `cached_run.CachedRun` first: one run, step by step. `rollout.sample` drives it. `rollout.Rollouts` is the same for
many schedules of the same cases, and fits weights as it goes (`predictors.fit_weights`).
"""
