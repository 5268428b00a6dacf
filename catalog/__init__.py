"""Which recordings there are and what they are called: tables, labels, annotations, identity, folds, the prepare report.

May import `audio`, `images`, `transforms` and what lies below them.
"""
