"""Systems that need no language model: what RNA-GPT must beat before its accuracy means anything.

    answers = baseline_answers(training_facts, held_out_facts, items, seed=0)     # five systems, labelled items

| system | rna_type | is_type | every other closed topic |
|---|---|---|---|
| majority | commonest type | commonest of yes, no | commonest training answer among the options |
| question_only | commonest training answer to the very same question, wording and type X included; else as above |
| nearest_train | the neighbour's | is the neighbour of that type | the neighbour's, else the majority's |
| length_only, kmer_length, linear_probe | one classifier | from the predicted type | one classifier a topic |

None of them sees a held-out answer, and all of them answer every item, so their n is the model's n.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from rnagpt.evaluation.asking.items import Item, labelled

Labels = list[str | None]


def baseline_answers(
    train_facts: Sequence,
    facts: Sequence,
    items: Sequence[Item],
    seed: int = 0,
    train_x: np.ndarray | None = None,
    test_x: np.ndarray | None = None,
    neighbours: Sequence | None = None,
) -> list[Item]:
    """Every baseline's labelled items; the linear probe joins in where encoder features are given, and the nearest
    RNA by sequence identity where `neighbours` are (of `nearest_by_identity`, one per held-out fact).

    train_x: (n_train_facts, width) and test_x: (n_facts, width), float: one mean-pooled row per fact, in their order.
    """
    systems = {
        "majority": majority_answer,
        "question_only": question_only,
        "nearest_train": nearest_train,
        "length_only": length_only,
        "kmer_length": kmer_length,
    }
    answers = {system: predict(train_facts, facts, items, seed) for system, predict in systems.items()}
    if train_x is not None and test_x is not None:
        answers["linear_probe"] = answers_from_features(train_facts, train_x, facts, test_x, items, seed)
    if neighbours is not None:
        copied = {fact.rna_id: train_facts[near.place] for fact, near in zip(facts, neighbours, strict=True)}
        answers["nearest_identity"] = copied_answers(train_facts, copied, items, seed)
    shows_rna = {system: system not in ("majority", "question_only") for system in answers}
    return [
        labelled(item, system, label, item.rna_id if shows_rna[system] else None)
        for system, labels in answers.items()
        for item, label in zip(items, labels, strict=True)
    ]


def majority_answer(train_facts: Sequence, facts: Sequence, items: Sequence[Item], seed: int = 0) -> Labels:
    """The commonest training answer to each topic among the item's options; ties go to the first in the alphabet."""
    counts = _training_answers(train_facts, seed)
    return [_commonest(item, counts) for item in items]


def question_only(train_facts: Sequence, facts: Sequence, items: Sequence[Item], seed: int = 0) -> Labels:
    """The commonest training answer to the same question, word for word; the majority answer where it was never asked.

    What the wording alone gives away: "Is this a tRNA?" names a type, and types are not equally common.
    """
    from dataset_builder.facts_table.fact_questions import questions

    counts = _training_answers(train_facts, seed)
    asked: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for fact in train_facts:
        for question in questions(fact, seed):
            asked[question.topic, question.question][question.gold] += 1
    labels = []
    for item in items:
        known = asked.get((item.topic, item.question))
        labels.append(_commonest(item, {item.topic: known} if known else counts))
    return labels


def nearest_train(train_facts: Sequence, facts: Sequence, items: Sequence[Item], seed: int = 0) -> Labels:
    """The answer that holds for the training RNA with the most similar 4-mer counts (cosine).

    The neighbour is of one of the types asked about. Where it has no answer among the options (an amino acid for a
    copied miRNA), the majority answer.
    """
    from sklearn.neighbors import NearestNeighbors

    types = {label for item in items if item.topic == "rna_type" for label in item.options}
    known = [fact for fact in train_facts if not types or fact.rna_type in types]
    train_x, test_x = kmer_counts(known, facts, sizes=(4, 4))
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(train_x)
    places = nearest.kneighbors(test_x, return_distance=False)[:, 0]
    return copied_answers(
        train_facts, {fact.rna_id: known[place] for fact, place in zip(facts, places, strict=True)}, items, seed
    )


def copied_answers(train_facts: Sequence, copied: dict[str, object], items: Sequence[Item], seed: int = 0) -> Labels:
    """The answers that hold for the training RNA which `copied` gives for each rna_id; else the majority answer."""
    by_topic = _labels_by_topic(list({fact.rna_id: fact for fact in copied.values()}.values()), seed)
    counts = _training_answers(train_facts, seed)
    labels = []
    for item in items:
        source = copied[item.rna_id]
        label = (
            _yes_or_no(item, source.rna_type) if item.topic == "is_type" else by_topic[item.topic].get(source.rna_id)
        )
        labels.append(label if label in item.options else _commonest(item, counts))
    return labels


def length_only(train_facts: Sequence, facts: Sequence, items: Sequence[Item], seed: int = 0) -> Labels:
    """A decision tree of at most 16 leaves on the length in nt: types sit in bands of length, which a tree can cut."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=16, min_samples_leaf=5, class_weight="balanced", random_state=seed)
    train_x, test_x = (np.array([[len(fact.sequence)] for fact in some]) for some in (train_facts, facts))
    return answers_from_features(
        train_facts, train_x, facts, test_x, items, seed, lambda x, y, new: tree.fit(x, y).predict(new).tolist()
    )


def kmer_length(train_facts: Sequence, facts: Sequence, items: Sequence[Item], seed: int = 0) -> Labels:
    """Logistic regression on the shares of the 84 1-, 2- and 3-mers and the logarithm of the length."""
    train_x, test_x = kmer_counts(train_facts, facts, sizes=(1, 3))
    lengths = [np.array([[len(fact.sequence)] for fact in some]) for some in (train_facts, facts)]
    train_x, test_x = (
        np.hstack([counts / length, np.log(length)]) for counts, length in zip((train_x, test_x), lengths, strict=True)
    )
    return answers_from_features(train_facts, train_x, facts, test_x, items, seed)


def linear_probe(train_x: np.ndarray, train_y: Sequence[str], test_x: np.ndarray) -> list[str]:
    """Labels of test_x by logistic regression on standardised features, each label weighing alike.

    train_x: (n_train, width), test_x: (n_test, width), float. A single training label is answered throughout.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(train_y)) == 1:
        return [train_y[0]] * len(test_x)
    # scikit-learn's own C of 1, so nothing was tuned; at this tolerance labels have settled in half the time
    regression = LogisticRegression(class_weight="balanced", max_iter=1_000, tol=1e-3)
    return make_pipeline(StandardScaler(), regression).fit(train_x, train_y).predict(test_x).tolist()


def answers_from_features(
    train_facts: Sequence,
    train_x: np.ndarray,
    facts: Sequence,
    test_x: np.ndarray,
    items: Sequence[Item],
    seed: int = 0,
    classify: Callable[[np.ndarray, list[str], np.ndarray], list[str]] = linear_probe,
) -> Labels:
    """Labels of the items by one classifier per topic, fitted on the training RNAs whose answer is among the options.

    "Is it of type X?" follows from the predicted type. A topic without training answers gets the majority answer.
    """
    if (len(train_facts), len(facts)) != (len(train_x), len(test_x)):
        raise ValueError(
            f"features must match the RNAs: got {len(train_x)} rows for {len(train_facts)} training RNAs "
            f"and {len(test_x)} rows for {len(facts)} held-out RNAs"
        )
    by_topic, counts = _labels_by_topic(train_facts, seed), _training_answers(train_facts, seed)
    row = {fact.rna_id: index for index, fact in enumerate(facts)}
    offered: dict[str, set[str]] = defaultdict(set)
    for item in items:
        offered[item.topic].update(item.options)
    predicted: dict[str, list[str]] = {}
    for topic in sorted((set(offered) - {"is_type"}) | {"rna_type"}):
        possible = offered.get(topic) or set(by_topic[topic].values())
        fitting = [index for index, fact in enumerate(train_facts) if by_topic[topic].get(fact.rna_id) in possible]
        if fitting:
            answers = [by_topic[topic][train_facts[index].rna_id] for index in fitting]
            predicted[topic] = classify(np.asarray(train_x)[fitting], answers, np.asarray(test_x))
    labels = []
    for item in items:
        topic = "rna_type" if item.topic == "is_type" else item.topic
        label = predicted[topic][row[item.rna_id]] if topic in predicted else None
        if item.topic == "is_type" and label is not None:
            label = _yes_or_no(item, label)
        labels.append(label if label in item.options else _commonest(item, counts))
    return labels


def kmer_counts(train_facts: Sequence, facts: Sequence, sizes: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Counts of all k-mers of these sizes (first to last) that occur in training; two (n, n_kmers) arrays."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer="char", ngram_range=sizes, lowercase=False)
    train_x = counter.fit_transform([fact.sequence for fact in train_facts])
    return train_x.toarray(), counter.transform([fact.sequence for fact in facts]).toarray()


def _labels_by_topic(facts: Sequence, seed: int) -> dict[str, dict[str, str]]:
    """Topic -> rna_id -> the right label, for the topics whose label is a property of the RNA (not is_type)."""
    from dataset_builder.facts_table.fact_questions import questions

    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for fact in facts:
        for question in questions(fact, seed):
            if question.gold and question.topic != "is_type":
                labels[question.topic][fact.rna_id] = question.gold
    return labels


def _training_answers(facts: Sequence, seed: int) -> dict[str, Counter]:
    """Topic -> how often each label is the right answer in training."""
    from dataset_builder.facts_table.fact_questions import questions

    counts: dict[str, Counter] = defaultdict(Counter)
    for fact in facts:
        for question in questions(fact, seed):
            counts[question.topic][question.gold] += 1
    return counts


def _commonest(item: Item, counts: dict[str, Counter]) -> str:
    return min(item.options, key=lambda label: (-counts[item.topic][label], label))


def _yes_or_no(item: Item, rna_type: str) -> str | None:
    """The answer to "is it of type X?" for an RNA of `rna_type`; X is read from the question."""
    from dataset_builder.facts_table.fact_questions import parse_answer

    asked = parse_answer(item.question, "rna_type")
    return None if asked is None else ("yes" if asked == rna_type else "no")
