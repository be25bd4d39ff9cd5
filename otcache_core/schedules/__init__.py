"""What a schedule is, and how it moves to another budget or another sigma grid. Plain numbers: no latents, no model.

Read `schedule.Schedule` first, then `interpolation.schedule_at`: the budget slider.
"""
