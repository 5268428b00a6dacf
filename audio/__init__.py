"""From a recording on disk to samples and log-mel: decoding, damage, decoder processes, arrays, mel.

May import `configs`, `metrics` and `files`; every other room may import it.
"""
