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
from rnagpt.known_rnas.neighbours import alignment_free

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
    training = Training(train_facts, seed)
    answers = {
        "majority": [training.commonest(item) for item in items],
        "question_only": [training.commonest(item, same_question=True) for item in items],
        "nearest_train": nearest_train(training, facts, items),
        "length_only": length_only(training, facts, items, seed),
        "kmer_length": kmer_length(training, facts, items),
    }
    if train_x is not None and test_x is not None:
        answers["linear_probe"] = answers_from_features(training, train_x, facts, test_x, items)
    if neighbours is not None:
        copied = {fact.rna_id: train_facts[near.place] for fact, near in zip(facts, neighbours, strict=True)}
        answers["nearest_identity"] = copied_answers(training, copied, items)
    return [
        labelled(item, system, label, None if system in ("majority", "question_only") else item.rna_id)
        for system, labels in answers.items()
        for item, label in zip(items, labels, strict=True)
    ]


class Training:
    """The training RNAs, and the right answers to the questions about them.

    counts: topic, or (topic, question word for word) -> how often each label is right; labels: topic -> rna_id -> the
    right label, for the topics whose label is a property of the RNA (not is_type).
    """

    def __init__(self, facts: Sequence, seed: int = 0):
        from dataset_builder.facts_table.fact_questions import questions

        self.facts = facts
        self.counts: dict[str | tuple[str, str], Counter] = defaultdict(Counter)
        self.labels: dict[str, dict[str, str]] = defaultdict(dict)
        for fact in facts:
            for question in questions(fact, seed):
                self.counts[question.topic][question.gold] += 1
                self.counts[question.topic, question.question][question.gold] += 1
                if question.gold and question.topic != "is_type":
                    self.labels[question.topic][fact.rna_id] = question.gold

    def commonest(self, item: Item, same_question: bool = False) -> str:
        """The item's option that is right most often; ties go to the first in the alphabet.

        same_question: among the same questions, word for word, where there are any. What the wording alone gives away:
        "Is this a tRNA?" names a type, and types are not equally common.
        """
        counts = self.counts[item.topic]
        if same_question and (item.topic, item.question) in self.counts:
            counts = self.counts[item.topic, item.question]
        return min(item.options, key=lambda label: (-counts[label], label))


def nearest_train(training: Training, facts: Sequence, items: Sequence[Item]) -> Labels:
    """The answer that holds for the training RNA with the most similar 4-mer counts (cosine).

    The neighbour is of one of the types asked about. Where it has no answer among the options (an amino acid for a
    copied miRNA), the majority answer.
    """
    types = {label for item in items if item.topic == "rna_type" for label in item.options}
    known = [fact for fact in training.facts if not types or fact.rna_type in types]
    places = alignment_free([fact.sequence for fact in facts], [fact.sequence for fact in known])
    copied = {fact.rna_id: known[row[0]] for fact, row in zip(facts, places, strict=True)}
    return copied_answers(training, copied, items)


def copied_answers(training: Training, copied: dict[str, object], items: Sequence[Item]) -> Labels:
    """The answers that hold for the training RNA which `copied` gives for each rna_id; else the majority answer."""
    labels = []
    for item in items:
        source = copied[item.rna_id]
        known = training.labels[item.topic].get(source.rna_id)
        label = _yes_or_no(item, source.rna_type) if item.topic == "is_type" else known
        labels.append(label if label in item.options else training.commonest(item))
    return labels


def length_only(training: Training, facts: Sequence, items: Sequence[Item], seed: int = 0) -> Labels:
    """A decision tree of at most 16 leaves on the length in nt: types sit in bands of length, which a tree can cut."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=16, min_samples_leaf=5, class_weight="balanced", random_state=seed)

    def classify(x, y, new):
        return tree.fit(x, y).predict(new).tolist()

    train_x, test_x = ([[len(fact.sequence)] for fact in some] for some in (training.facts, facts))
    return answers_from_features(training, train_x, facts, test_x, items, classify)


def kmer_length(training: Training, facts: Sequence, items: Sequence[Item]) -> Labels:
    """Logistic regression on the shares of the 84 1-, 2- and 3-mers and the logarithm of the length."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False)
    counter.fit([fact.sequence for fact in training.facts])

    def features(some: Sequence) -> np.ndarray:
        sequences = [fact.sequence for fact in some]
        lengths = np.array([[len(sequence)] for sequence in sequences])
        return np.hstack([counter.transform(sequences).toarray() / lengths, np.log(lengths)])

    return answers_from_features(training, features(training.facts), facts, features(facts), items)


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
    training: Training,
    train_x: np.ndarray,
    facts: Sequence,
    test_x: np.ndarray,
    items: Sequence[Item],
    classify: Callable[[np.ndarray, list[str], np.ndarray], list[str]] = linear_probe,
) -> Labels:
    """Labels of the items by one classifier per topic, fitted on the training RNAs whose answer is among the options.

    "Is it of type X?" follows from the predicted type. A topic without training answers gets the majority answer.
    """
    if (len(training.facts), len(facts)) != (len(train_x), len(test_x)):
        raise ValueError(
            f"features must match the RNAs: got {len(train_x)} rows for {len(training.facts)} training RNAs "
            f"and {len(test_x)} rows for {len(facts)} held-out RNAs"
        )
    offered: dict[str, set[str]] = defaultdict(set)
    for item in items:
        offered[item.topic].update(item.options)
    predicted: dict[str, dict[str, str]] = {}  # topic -> rna_id -> label
    for topic in sorted((set(offered) - {"is_type"}) | {"rna_type"}):
        known = [training.labels[topic].get(fact.rna_id) for fact in training.facts]
        possible = offered.get(topic) or set(training.labels[topic].values())
        if fitting := [index for index, label in enumerate(known) if label in possible]:
            answers = classify(np.asarray(train_x)[fitting], [known[index] for index in fitting], np.asarray(test_x))
            predicted[topic] = dict(zip([fact.rna_id for fact in facts], answers, strict=True))
    labels = []
    for item in items:
        label = predicted.get("rna_type" if item.topic == "is_type" else item.topic, {}).get(item.rna_id)
        label = _yes_or_no(item, label) if item.topic == "is_type" and label else label
        labels.append(label if label in item.options else training.commonest(item))
    return labels


def _yes_or_no(item: Item, rna_type: str) -> str | None:
    """The answer to "is it of type X?" for an RNA of `rna_type`; X is read from the question."""
    from dataset_builder.facts_table.fact_questions import parse_answer

    named = parse_answer(item.question, "rna_type")
    return None if named is None else ("yes" if named == rna_type else "no")
