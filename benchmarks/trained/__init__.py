"""Two more small models to measure on, beside the embedded one: a U-Net that predicts noise, and a video transformer.

Read `models.py` first. `training.py` trained both from drawings (`drawings.py`); their weights lie beside it.
"""
