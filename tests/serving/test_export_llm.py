"""The LLM written for vLLM, and its client: the same logits as RNA-GPT's, without our package and without vLLM.

pytest tests/serving/test_export_llm.py
"""

import base64
import io
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from loopback_server import send
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling_rnagpt import RnaGptForCausalLM
from processing_rnagpt.processing_rnagpt import RNA_TOKEN
from rnagpt import cli
from rnagpt.serving.decoding import Sampling
from rnagpt.serving.engine import Engine
from rnagpt.serving.export_llm import client_model, compare, plain_llm
from rnagpt.serving.llm_client import ClientError, RnaClient, main

RNA = "GCGGAUUUAGCUCAGUUGGGAGAGCGCCAGACUGAAGAUCUGGAGGUCC"
TURNS = [
    {"role": "user", "content": [{"type": "rna", "rna": RNA}, {"type": "text", "text": "What <|im_end|> is this?"}]},
    {"role": "assistant", "content": "A tRNA."},
    {"role": "user", "content": [{"type": "rna", "rna": RNA * 4}, {"type": "text", "text": "And this?"}]},  # 2 windows
]
CLEAN = """
import importlib.util, json, sys
for name in ("rnagpt", "modeling_rnagpt", "processing_rnagpt", "train_sft"):
    sys.modules[name] = None  # importing it fails, as where it is not installed
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, turns, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
llm = AutoModelForCausalLM.from_pretrained(folder + "/llm")
AutoTokenizer.from_pretrained(folder + "/llm")
spec = importlib.util.spec_from_file_location("client", folder + "/client/client.py")
client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(client)
embeds = client.RnaClient().embed(turns)
with torch.inference_mode():
    save_file({"embeds": embeds.clone(), "logits": llm(inputs_embeds=embeds[None]).logits}, out)
"""


@pytest.fixture(scope="module")
def exported(tiny_checkpoint, tmp_path_factory):
    """The tiny checkpoint, exported."""
    folder = tmp_path_factory.mktemp("exported") / "export"
    assert cli.main(["export-llm", str(tiny_checkpoint), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def client(exported):
    return RnaClient(exported / "client")


def rnagpt_logits(tiny_model, messages):
    model, processor = tiny_model
    with torch.inference_mode():
        return model(**processor(messages, sanitize_control_tokens=True)).logits


def test_logits_are_rnagpts_in_an_interpreter_without_our_package(tiny_model, exported, tmp_path):
    from safetensors.torch import load_file

    command = [sys.executable, "-c", CLEAN, str(exported), json.dumps(TURNS), str(tmp_path / "found")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "found")
    wanted = rnagpt_logits(tiny_model, TURNS)
    assert found["embeds"].shape == (wanted.shape[1], 32) and found["embeds"].dtype == torch.float32
    torch.testing.assert_close(found["logits"], wanted, rtol=0, atol=1e-5)


def test_the_rna_makes_a_difference(exported, client):
    llm = AutoModelForCausalLM.from_pretrained(exported / "llm")
    other = [{**TURNS[0], "content": [{"type": "rna", "rna": RNA[::-1]}, TURNS[0]["content"][1]]}, *TURNS[1:]]
    with torch.inference_mode():
        logits = [llm(inputs_embeds=client.embed(turns)[None]).logits[0, -1] for turns in (TURNS, other)]
    assert (logits[0] - logits[1]).abs().max() > 1e-2


def test_the_client_holds_no_layer_of_the_llm_and_the_llm_nothing_of_the_client(exported):
    from safetensors import safe_open

    with safe_open(exported / "client" / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {name for name in names if name.startswith("language_model.")} == {
        "language_model.embed_tokens.weight",
        "language_model.norm.weight",
    }
    assert any(name.startswith("rna_encoder.") for name in names)
    config = json.loads((exported / "llm" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and "auto_map" not in config
    assert not list((exported / "llm").glob("*.py"))
    # rotary settings stand under both names, of transformers 4 and 5
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]


def test_the_tokenizer_is_the_llms_and_makes_no_id_beyond_the_table(tiny_model, exported):
    model, processor = tiny_model
    tokenizer = AutoTokenizer.from_pretrained(exported / "llm")
    text = "<|im_start|>user\nWhat type of RNA is this?<|im_end|>"
    assert tokenizer(text)["input_ids"] == processor.tokenizer(text)["input_ids"]
    ids = tokenizer(f"Say {RNA_TOKEN}!")["input_ids"]
    assert max(ids) < model.config.text_config.vocab_size and tokenizer.decode(ids) == f"Say {RNA_TOKEN}!"
    turns = [{"role": "user", "content": "Hello"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered == processor.apply_chat_template(turns, add_generation_prompt=True)


class Vllm(BaseHTTPRequestHandler):
    """Plays vLLM's part: reads prompt embeddings as vLLM's server does, and answers with the exported LLM."""

    llm = tokenizer = None
    bodies: list[dict] = []

    def do_GET(self):
        send(self, 200, {"data": [{"id": "export/llm"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        if body["model"] != "export/llm":
            return send(self, 404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        file = io.BytesIO(base64.b64decode(body["prompt_embeds"], validate=True))
        embeds = torch.load(file, weights_only=True, map_location="cpu")
        assert embeds.dim() == 2 and embeds.is_floating_point()
        ids = self.llm.generate(
            inputs_embeds=embeds[None],
            attention_mask=torch.ones(1, len(embeds), dtype=torch.long),
            do_sample=False,
            max_new_tokens=body["max_tokens"],
            eos_token_id=body["stop_token_ids"],
            pad_token_id=self.tokenizer.eos_token_id,
        )[0]
        send(self, 200, {"choices": [{"text": self.tokenizer.decode(ids, skip_special_tokens=True)}]})

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(exported):
    Vllm.llm = AutoModelForCausalLM.from_pretrained(exported / "llm").eval()
    Vllm.tokenizer = AutoTokenizer.from_pretrained(exported / "llm")
    with ThreadingHTTPServer(("127.0.0.1", 0), Vllm) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/v1"
        listening.shutdown()


def test_over_http_the_answer_is_the_engines(tiny_model, client, server):
    engine = Engine(*tiny_model)
    answer = engine.prepare(TURNS, Sampling(12))
    engine.run([answer])
    assert answer.text and client.ask(TURNS, server, max_tokens=12) == answer.text
    body = Vllm.bodies[-1]
    assert "prompt" not in body and body["temperature"] == 0 and body["stop_token_ids"]


def test_the_tensor_sent_is_no_larger_than_its_numbers(client):
    embeds = client.embed(TURNS)
    content = base64.b64decode(client.request(TURNS, "x")["prompt_embeds"])
    assert embeds.nbytes < len(content) < embeds.nbytes + 4096


def test_what_the_server_says_instead_is_one_sentence(client, server, capsys, monkeypatch):
    with pytest.raises(ClientError, match="404.*does not exist"):
        client.ask(TURNS, server, "other")
    with pytest.raises(ClientError, match="could not be reached.*--enable-prompt-embeds"):
        client.ask(TURNS, "http://127.0.0.1:9/v1")
    monkeypatch.setattr("rnagpt.serving.llm_client.RnaClient", lambda: client)
    assert main(["--rna", "MKE", "--question", "Hm?", "--server", server]) == 2
    assert capsys.readouterr().err.startswith("client: error: RNA 1 of 1: ")
    assert main(["--rna", RNA, "--question", "Hm?", "--server", server, "--max-tokens", "4"]) == 0


def test_bfloat16_is_the_llms_alone(tiny_checkpoint, tmp_path):
    out = tmp_path / "export"
    assert cli.main(["export-llm", str(tiny_checkpoint), "--out", str(out), "--dtype", "bfloat16"]) == 0
    llm, client = AutoModelForCausalLM.from_pretrained(out / "llm", dtype="auto"), RnaClient(out / "client")
    assert llm.dtype == torch.bfloat16 and client.embed(TURNS).dtype == torch.bfloat16
    assert client.model.projector.weight.dtype == torch.float32
    model = RnaGptForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.bfloat16)
    with torch.inference_mode():
        wanted = model(**client.processor(TURNS, sanitize_control_tokens=True)).logits
        found = llm(inputs_embeds=client.embed(TURNS)[None]).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["{checkpoint}", "--out", "{checkpoint}"], "exists already"),
        (["{checkpoint}", "--out", "{new}", "--max-shard-size", "big"], "--max-shard-size"),
        (["{new}", "--out", "{new}"], "no checkpoint"),
        (["--out", "{new}"], "CHECKPOINT"),
    ],
)
def test_mistakes(capsys, tiny_checkpoint, tmp_path, arguments, sentence):
    given = [word.format(checkpoint=tiny_checkpoint, new=tmp_path / "new") for word in arguments]
    assert cli.main(["export-llm", *given]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "new").exists()


SMALL = {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 512, "pad_token_id": 0}


@pytest.mark.parametrize(
    "family, more",
    [
        ("qwen3", {"head_dim": 8}),
        ("mistral", {}),
        ("gpt_neox", {}),
        ("phi3", {}),
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 0.1}),
        ("granite", {"logits_scaling": 4.0}),
    ],
)
def test_other_families_are_exact(tiny_model, family, more):
    from transformers import AutoConfig

    tiny, processor = tiny_model
    llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL, **more)).eval()
    model = RnaGptForCausalLM.from_encoder_and_llm(
        tiny.model.rna_encoder, llm, rna_token_id=processor.rna_token_id, rna_drop_token_ids=[0, 2]
    )
    assert compare(model, processor, plain_llm(model), client_model(model)) == 0
