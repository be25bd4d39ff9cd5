"""The embedded model: its architecture, the drawings that it was trained on, the training script and the weights.

Read `generator.DemoGenerator` first. Only the commands and OT Demo Model use this folder.
"""
