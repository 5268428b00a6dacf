"""From a recording on disk to samples and log-mel.

Decoding, damage, decoder processes, signals that mislead, human voice, arrays, mel.

May import `configs`, `metrics` and `files`; every other room may import it.
"""
