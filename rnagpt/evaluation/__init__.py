"""Honest evaluation on held-out RNAs: the questions, the floors, the controls, the intervals, the report.

items       the questions, and every system's answers as JSON lines
controls    the RNAs shown in the true one's place: swapped, shuffled
baselines   majority, nearest training RNA, length only, 1-3-mers, linear probe
statistics  intervals and comparisons whose unit is the sequence cluster
summary     items.jsonl -> every figure; the terminal's table
headline    what the figures say in plain words
curves      learning curves from a CSV or from trainer states
charts      the figures; report: the page
command     `rnagpt evaluate RUN_DIR`
"""
