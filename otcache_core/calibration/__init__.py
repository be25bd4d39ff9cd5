"""From full runs of a model to its schedules: record, graphs, anchor search, guard.

Read `pipeline.calibrate` first: all stages in order.
"""
