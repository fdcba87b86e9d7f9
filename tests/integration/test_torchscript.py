"""A TorchScript file as the model: its losses are those of LibTorch itself, and what training leaves is TorchScript again."""
import json
import subprocess

import pytest

import harness

DATA = 65

SCRIPT = """
import sys, torch

class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(30522, 16)
        self.norm = torch.nn.LayerNorm(16)
        self.classifier = torch.nn.Linear(16, 2)
        self.register_buffer("calls", torch.zeros(1, dtype=torch.long))

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(2).to(torch.float32)
        mean = (self.words(input_ids) * mask).sum(1) / mask.sum(1)
        return self.classifier(self.norm(mean)), mean

torch.manual_seed(3)
torch.jit.script(Bag()).save(sys.argv[1])
"""

# The labels that the file gives to the texts, one by one.
JUDGE = """
import json, sys, torch, transformers
model = torch.jit.load(sys.argv[1]).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[2])
losses, labels = [], []
for line in open(sys.argv[3], encoding="utf-8"):
    row = json.loads(line)
    batch = tokenizer(row["text"], truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        logits = model(batch["input_ids"], batch["attention_mask"])[0]
    losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor([row["label"]])).item())
    labels.append(int(logits.argmax()))
print(json.dumps({"loss": sum(losses) / len(losses), "labels": labels}))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    (folder / "bag.py").write_text(SCRIPT)  # torch.jit.script reads the source of the class
    subprocess.run([harness.PYTHON, folder / "bag.py", folder / "bag.pt"], check=True, capture_output=True)
    return folder / "bag.pt"


def judged(path, texts):
    done = subprocess.run([harness.PYTHON, "-c", JUDGE, path, harness.MINILM, texts], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def recipe(folder, script, **changes):
    settings = {"data": {"eval_samples": None, "eval": str(folder / "texts.jsonl")},
                "tokenizer": {"path": str(harness.MINILM), "max_length": 32},
                "training": {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": 6, "learning_rate": 1e-2}}
    for section, keys in changes.items():
        settings[section] = settings.get(section, {}) | keys
    lines = (harness.IMDB / "imdb-small-test.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return harness.recipe(folder, script, **settings)


def test_trains_and_stays_torchscript(tmp_path, script):
    path = recipe(tmp_path, script, training={"save_strategy": "steps", "save_steps": 3})
    outcome = harness.run(path)
    assert outcome.code == 0, outcome.text
    losses = [record["eval_loss"] for record in harness.log_records(tmp_path / "out") if "eval_loss" in record]
    assert losses[0] == pytest.approx(judged(script, tmp_path / "texts.jsonl")["loss"], abs=1e-5)
    trained = judged(tmp_path / "out" / "model.pt", tmp_path / "texts.jsonl")
    assert losses[-1] == pytest.approx(trained["loss"], abs=1e-5) and losses[-1] != losses[0]

    printed = harness.run("evaluate", path)
    assert printed.code == 0 and f"eval_loss                {losses[-1]:.4f}" in printed.text, printed.text
    assert harness.run("predict", path).code == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["label_id"] for row in rows] == trained["labels"]

    # Two ranks, and two halves, are the same run.
    two = harness.run(path, "--set", f"training.output_dir={tmp_path / 'two'}", "--set",
                      "training.per_device_train_batch_size=2", ranks=2)
    assert two.code == 0, two.text
    last = [record["eval_loss"] for record in harness.log_records(tmp_path / "two") if "eval_loss" in record][-1]
    assert last == pytest.approx(losses[-1], abs=1e-5)
    rest = harness.run(path, "--set", f"training.output_dir={tmp_path / 'rest'}", "--set",
                       f"training.resume_from_checkpoint={tmp_path / 'out' / 'checkpoint-3'}")
    assert rest.code == 0, rest.text
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "rest")]
    assert weights[0] == weights[1]


def test_files_that_do_not_fit(tmp_path, script):
    wrong = tmp_path / "wrong.pt"
    wrong.write_bytes(script.read_bytes()[:500])
    outcome = harness.run(recipe(tmp_path, wrong))
    assert outcome.code == DATA and "wrong.pt: cannot be read as TorchScript" in outcome.error_lines()[0], outcome.text
    outcome = harness.run(recipe(tmp_path, script, model={"num_labels": 3}))
    assert outcome.code == DATA and "logits [8, 2] for 8 texts and 3 labels" in outcome.error_lines()[0], outcome.text
    outcome = harness.run(recipe(tmp_path, script, model={"task": "token-classification"}), timeout=60)
    assert outcome.code == 64 and "TorchScript" in outcome.error_lines()[0], outcome.text
    outcome = harness.run(recipe(tmp_path, script, tokenizer={"path": None}))
    assert outcome.code == 64 and "tokenizer.path: missing" in outcome.error_lines()[0], outcome.text
