"""From trained folds and recordings to scores and files.

Streams of samples, windows, models that score them, detections, file formats and the report page.

May import everything but `training` and the scripts.
"""
