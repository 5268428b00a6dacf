"""What a training run needs around its loop.

Batches, the folder, several processes, signals, lack of memory, checks, resuming, timing.

May import everything but `inference` and the scripts.
"""
