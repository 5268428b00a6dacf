"""The parts of the model: timm's backbone and its weights, and the heads.

`model.py` puts them together.
"""
