"""From a trained fold and a recording to scores and files: models, windows, streams, detections, formats, the report.

May import everything but `training` and the scripts.
"""
