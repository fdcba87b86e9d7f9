"""BART against the Hugging Face libraries: training, evaluation with written texts, every way of writing them."""
import json
import subprocess

import pytest

import harness

PEER = harness.ROOT / "tests" / "integration" / "seq2seq_peer.py"


def peer(*arguments):
    printed = subprocess.run([harness.PYTHON, PEER, *map(str, arguments)], capture_output=True, text=True, cwd="/", timeout=600,
                             env=harness.environment(OMP_NUM_THREADS="1"))
    assert printed.returncode == 0, printed.stderr
    return printed.stdout.splitlines()[-1] if printed.stdout else ""


@pytest.fixture(scope="session")
def bart(tmp_path_factory):
    """Folders of small models; that of seed 2 multiplies its embeddings."""
    folders = {}
    for seed in (1, 2):
        folders[seed] = tmp_path_factory.mktemp(f"bart_{seed}")
        peer("make", folders[seed], seed)
    return folders


def recipe(folder, start, /, **changes):
    """A run on the pairs of `start`."""
    sections = {
        "model": {"path": str(start), "task": "seq2seq-lm", "dropout": 0},
        "tokenizer": {"max_length": 24, "max_target_length": 16},
        "data": {"train": str(start / "train.jsonl"), "eval": str(start / "eval.jsonl"), "source": "translation.en",
                 "target": "translation.de", "cache_dir": str(folder / "tokens")},
        "training": {"output_dir": str(folder / "out"), "use_cpu": True, "max_steps": 50, "learning_rate": 6e-3,
                     "per_device_train_batch_size": 16, "per_device_eval_batch_size": 40, "logging_steps": 1, "save_strategy": "no",
                     "disable_tqdm": True},
    }
    for section, keys in changes.items():
        sections[section] = {key: value for key, value in (sections.get(section, {}) | keys).items() if value is not None}
    return harness.write_toml(folder / "recipe.toml", sections)


def losses(folder):
    return [record["loss"] for record in harness.log_records(folder / "out") if "loss" in record]


def trained(folder, path, ranks=None, **environment):
    outcome = harness.run(path, ranks=ranks, **environment)
    assert outcome.code == 0, outcome.text
    return folder / "out"


@pytest.fixture(scope="session")
def run(bart, tmp_path_factory):
    """A run that has learnt to translate: its folder, and what the peer's run says."""
    results = {}
    for seed, generation in ((1, {}), (2, {"generation_max_length": 14, "generation_num_beams": 3})):
        folder = tmp_path_factory.mktemp(f"run_{seed}")
        out = trained(folder, recipe(folder, bart[seed], metrics={"compute": ["bleu", "exact_match", "perplexity"]},
                                     training={"eval_strategy": "epoch", "predict_with_generate": True, **generation}))
        theirs = json.loads(peer("train", json.dumps({
            "model": str(bart[seed]), "output_dir": str(folder / "peer"), "train": str(bart[seed] / "train.jsonl"),
            "eval": str(bart[seed] / "eval.jsonl"),
            "training": {"max_steps": 50, "learning_rate": 6e-3, "per_device_train_batch_size": 16, "per_device_eval_batch_size": 40,
                         "eval_strategy": "epoch", **generation}})))
        results[seed] = (folder, out, theirs)
    return results


@pytest.mark.parametrize("seed", [1, 2])
def test_training_and_evaluation_equal_the_peer(run, seed):
    _, out, theirs = run[seed]
    ours = harness.log_records(out)
    steps = [record for record in ours if "loss" in record]
    expected = [record for record in theirs["history"] if "loss" in record]
    assert len(steps) == len(expected) == 50
    for mine, other in zip(steps, expected):
        # The rate is high, so that 50 steps teach something: differences of rounding grow, and the norm feels them first.
        for key, tolerance in (("loss", 1e-4), ("grad_norm", 1e-4 if other["step"] <= 20 else 2e-3), ("learning_rate", 1e-9)):
            assert mine[key] == pytest.approx(other[key], rel=tolerance), (other["step"], key)
    assert expected[-1]["loss"] < 0.5 * expected[0]["loss"]
    evaluations = [record for record in ours if "eval_loss" in record]
    for mine, other in zip(evaluations, [record for record in theirs["history"] if "eval_loss" in record], strict=True):
        assert mine["eval_loss"] == pytest.approx(other["eval_loss"], rel=1e-4)
        # What rounding has made of the weights may turn a choice between two words that are as likely, with another number of
        # threads say. From the same weights the texts are the same, one by one: test_texts_are_those_of_generate.
        assert mine["eval_bleu"] == pytest.approx(other["eval_bleu"], abs=0.5)
        assert mine["eval_exact_match"] == pytest.approx(other["eval_exact_match"], abs=0.05)
    results = json.loads((out / "eval_results.json").read_text())
    assert results["eval_bleu"] == pytest.approx(theirs["evaluation"]["eval_bleu"], abs=0.5)
    assert results["eval_bleu"] > 5


VARIANTS = [
    {},
    {"max_length": 10},
    {"num_beams": 4},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
    {"num_beams": 3, "length_penalty": -1.0, "early_stopping": "never"},
    {"num_beams": 5, "length_penalty": 0.0, "max_new_tokens": 12},
    {"num_beams": 4, "no_repeat_ngram_size": 2, "early_stopping": True, "max_length": 20},
    {"no_repeat_ngram_size": 1, "repetition_penalty": 1.7, "forced_eos_token_id": None},
    {"min_length": 12, "num_beams": 2},
    {"min_new_tokens": 9, "forced_bos_token_id": 0},
    {"eos_token_id": [2, 30], "num_beams": 2},
]


def test_texts_are_those_of_generate(run, bart, tmp_path):
    folder, out, _ = run[1]
    expected = json.loads(peer("write", out, bart[1] / "eval.jsonl", json.dumps(VARIANTS)))
    plain = json.loads((out / "generation_config.json").read_text())
    assert len({tuple(texts) for texts in expected}) == len(VARIANTS), "the options make no difference"
    for options, texts in zip(VARIANTS, expected):
        (tmp_path / "generation_config.json").write_text(json.dumps(plain | options))
        written = tmp_path / "texts.jsonl"
        outcome = harness.run("predict", folder / "recipe.toml", "--out", written, "--set", f'training.generation_config="{tmp_path}"',
                              "--set", "training.per_device_eval_batch_size=7")
        assert outcome.code == 0, outcome.text
        lines = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
        assert [line["index"] for line in lines] == list(range(len(texts)))
        assert [line["text"] for line in lines] == texts, options


def test_ranks_write_the_same_texts_and_need_no_targets(run, bart, tmp_path):
    folder, _, _ = run[2]
    sources = tmp_path / "sources.jsonl"
    rows = [json.loads(line) for line in (bart[2] / "eval.jsonl").read_text(encoding="utf-8").splitlines()]
    sources.write_text("".join(json.dumps({"translation": {"en": row["translation"]["en"]}}) + "\n" for row in rows))
    texts = []
    for ranks, arguments in ((None, []), (2, ["--data", sources, "--unlabelled"])):
        written = tmp_path / f"texts_{ranks}.jsonl"
        outcome = harness.run("predict", folder / "recipe.toml", "--out", written, *arguments, ranks=ranks)
        assert outcome.code == 0, outcome.text
        texts.append(written.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]


def test_every_split_gives_the_same_losses_with_dropout(bart, tmp_path):
    plain = None
    for name, ranks, batch, accumulation, model, training, environment in (
            ("plain", None, 8, 1, {}, {}, {}), ("two_ranks", 2, 2, 2, {}, {}, {}), ("padded", None, 8, 1, {"compute_padding": True}, {}, {}),
            ("recomputed", None, 8, 1, {}, {"gradient_checkpointing": True}, {}),
            ("generic", None, 8, 1, {}, {}, {"DTRAIN_CPU_KERNELS": "generic"})):
        folder = tmp_path / name
        folder.mkdir()
        trained(folder, recipe(folder, bart[1], model={"dropout": 0.1} | model,
                               training={"max_steps": 8, "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
                               | training), ranks, **environment)
        if plain is None:
            plain = losses(folder)
        assert losses(folder) == pytest.approx(plain, rel=1e-5), name


def test_what_does_not_fit_is_refused(bart, tmp_path):
    def refused(code, *parts, **changes):
        outcome = harness.run(recipe(tmp_path, changes.pop("start", bart[1]), **changes))
        assert outcome.code == code and len(outcome.error_lines()) == 1, outcome.text
        for part in parts:
            assert part in outcome.text, outcome.text

    refused(64, "metrics.compute", "judges texts", metrics={"compute": ["bleu"]})
    refused(64, "predict_with_generate", "masked-lm", model={"task": "masked-lm"}, training={"predict_with_generate": True})
    refused(64, "neftune_noise_alpha", "bart", training={"neftune_noise_alpha": 5.0})
    refused(64, "generation_max_length", "48 positions", training={"predict_with_generate": True, "generation_max_length": 50})
    refused(64, "model.task", "bart", model={"task": "causal-lm"})
    (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": True, "decoder_start_token_id": 2}))
    refused(65, "do_sample", "generation_config.json",
            training={"predict_with_generate": True, "generation_config": str(tmp_path / "generation_config.json")})


def test_a_bias_of_scores_is_not_ignored(bart, tmp_path):
    start = tmp_path / "start"
    script = ("import sys, transformers; m = transformers.BartForConditionalGeneration.from_pretrained(sys.argv[1]); "
              "m.final_logits_bias[0, 7] = 1.0; m.save_pretrained(sys.argv[2]); "
              "transformers.AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])")
    subprocess.run([harness.PYTHON, "-c", script, bart[1], start], check=True, capture_output=True, cwd="/")
    outcome = harness.run(recipe(tmp_path, bart[1], model={"path": str(start)}))
    assert outcome.code == 65 and "final_logits_bias" in outcome.text, outcome.text


def test_from_pretrained_loads_the_result(run):
    _, out, _ = run[2]
    script = ("import sys, json, transformers; "
              "m, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], output_loading_info=True); "
              "print(json.dumps([sorted(map(str, info['missing_keys'])), sorted(map(str, info['unexpected_keys'])), "
              "float(m.final_logits_bias.abs().max())]))")
    printed = subprocess.run([harness.PYTHON, "-c", script, out], check=True, capture_output=True, text=True, cwd="/")
    missing, unexpected, bias = json.loads(printed.stdout.splitlines()[-1])
    assert set(missing) <= {"final_logits_bias"} and not unexpected and bias == 0
