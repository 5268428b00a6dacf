"""Which recordings there are, what they are called, and which belong together.

Reads tables, labels, annotations and the report of prepare_audios.py, and deals folds.

May import `audio`, `images`, `transforms` and what lies below them.
"""
