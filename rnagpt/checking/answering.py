"""Whether an LLM's answers may be computed together, and go on from kept keys and values, without a change.

Found out on a tiny twin: rows of different lengths with gaps before and within them, against each row alone.
"""

import sys

TOLERANCE = 1e-4  # of a logit, in fp32
_FOUND: dict[str, bool] = {}  # by the configuration


def exact_together(text_config) -> bool:
    """Whether the chat's batches give each answer what it gets alone; where not, tells it, once."""
    key = text_config.to_json_string(use_diff=False)
    if key not in _FOUND:
        _FOUND[key] = compare_answers(text_config)
        if not _FOUND[key]:
            print(
                f"note: {text_config.model_type} is not shown to answer the same in company as alone (its layers "
                "carry a state, or count along the row), so questions are answered one after another",
                file=sys.stderr,
            )
    return _FOUND[key]


def compare_answers(text_config) -> bool:
    """See `exact_together`."""
    import torch

    from rnagpt.checking.layouts import around
    from rnagpt.checking.twins import twin_of
    from rnagpt.serving.engine import Engine
    from rnagpt.serving.key_values import KeyValues, stacked

    llm = twin_of(text_config)
    if llm is None or getattr(llm, "_is_stateful", False):  # the family's own word for layers that carry a state
        return False
    engine = Engine(around(llm), None)
    engine.together = True
    device, texts = engine.model.device, [list(range(5, 19)), list(range(40, 23, -1))]

    def run(held, tokens: list[list[int]], starts: list[int]):
        width = max(map(len, tokens))
        ids, mask = (
            torch.zeros(len(tokens), width, dtype=torch.long),
            torch.zeros(len(tokens), width, dtype=torch.bool),
        )
        positions = torch.zeros_like(ids)
        for i, (row, start) in enumerate(zip(tokens, starts, strict=True)):
            ids[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(row), True
            positions[i, width - len(row) :] = torch.arange(start, start + len(row))
        return engine.forward(held, ids, positions, mask, {})

    nothing = [KeyValues.of([], device) for _ in texts]
    try:
        with torch.inference_mode():
            wanted = []
            for text in texts:
                first, held = run(KeyValues.of([], device), [text], [0])
                second, _ = run(held, [[7]], [len(text)])
                whole = llm(input_ids=torch.tensor([[*text, 7]]), use_cache=False).logits[:, -2:].transpose(0, 1)
                wanted.append((first, second, whole))
            _, begun = run(nothing[0], [texts[0][:5]], [0])  # the first row goes on from five kept tokens
            first, held = run(stacked([begun, nothing[1]]), [texts[0][5:], texts[1]], [5, 0])
            second, _ = run(held, [[7], [7]], list(map(len, texts)))
    except Exception:  # noqa: BLE001  whatever a family raises at a mask or cache that it does not know
        return False
    return all(
        bool(
            (torch.cat([first[i], second[i]]) - torch.cat([each.flatten() for each in other])).abs().max() <= TOLERANCE
        )
        for i, (one, two, whole) in enumerate(wanted)
        for other in ((one, two), whole)
    )
