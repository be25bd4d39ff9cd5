"""The embedded tiny model: FLUX architecture, drawn data set, training script, weights, generator."""
