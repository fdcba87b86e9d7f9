"""Fixtures shared by the tests of processes: those of this folder and of tests/faults."""
import json
import subprocess

import pytest

import harness


def start_folder(kind, factory):
    """Start weights drawn by transformers, checked to be those with which the peer's numbers were recorded."""
    folder = factory.mktemp(f"start_{kind}")
    script = harness.ROOT / "tests" / "golden" / "record_peer.py"
    printed = subprocess.run([harness.PYTHON, script, "--start", kind, folder], check=True, capture_output=True, text=True)
    golden = json.loads((harness.ROOT / "tests" / "data" / "golden" / f"peer_{kind}.json").read_text(encoding="utf-8"))
    assert printed.stdout.split()[-1] == golden["start_digest"], "transformers drew other start weights than recorded"
    return folder


@pytest.fixture(scope="session")
def minilm_start(tmp_path_factory):
    return start_folder("minilm", tmp_path_factory)


@pytest.fixture(scope="session")
def gpt2_start(tmp_path_factory):
    return start_folder("gpt2", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """A two-layer BERT with the real vocabulary, small enough to train in milliseconds."""
    folder = tmp_path_factory.mktemp("tiny_bert")
    script = ("import sys, transformers; transformers.set_seed(1); "
              "config = transformers.BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, "
              "intermediate_size=64, max_position_embeddings=64); "
              "transformers.BertForSequenceClassification(config).save_pretrained(sys.argv[1]); "
              "transformers.AutoTokenizer.from_pretrained(sys.argv[2]).save_pretrained(sys.argv[1])")
    subprocess.run([harness.PYTHON, "-c", script, folder, harness.MINILM], check=True, capture_output=True)
    return folder
