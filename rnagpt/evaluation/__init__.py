"""Honest evaluation on held-out RNAs: `rnagpt evaluate RUN_DIR`.

asking      the questions, the systems that answer them, the controls and the baselines
scoring     answers against references and labels; intervals whose unit is the sequence cluster
reporting   items.jsonl -> every figure, table and chart, and what they say in plain words
"""
