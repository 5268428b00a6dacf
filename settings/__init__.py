"""How settings are described, read and shown; the machinery below `configs.py`, which has them.

Imports nothing of ours; `configs` alone imports it.
"""
