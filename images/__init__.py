"""A training image: what is drawn for it, its noises, and the same work done on the device.

May import `audio`, `catalog`, `transforms` and what lies below them.
"""
