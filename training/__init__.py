"""What a training run needs around its loop: batches, folders, processes, stopping, memory, verifying, resuming, time.

May import everything but `inference` and the scripts.
"""
