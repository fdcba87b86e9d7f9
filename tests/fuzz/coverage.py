#!/usr/bin/env python3
"""Which lines of the files that read from outside the committed corpora reach.

usage: coverage.py BUILD TARGET...   (./dev fuzz --coverage builds and calls this)
Ends with 1 when they reach less than 95 % of the lines of all of these files together.
"""
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENOUGH = 95.0
# Of each target: the files that it is about.
PARSERS = {
    "toml": ["configs/toml_reader.cpp", "configs/load_config.cpp", "configs/checked_value.cpp",
             "configs/sweep_settings.cpp", "configs/resolve.cpp"],
    "safetensors": ["trainer/models/safetensors.cpp", "trainer/models/safetensors_header.cpp",
                    "trainer/models/safetensors_writer.cpp"],
    "manifest": ["trainer/checkpoint/manifest.cpp", "core/json.cpp"],
    "records": ["trainer/checkpoint/run_json.cpp", "trainer/checkpoint/trainer_state.cpp",
                "trainer/models/model_config.cpp", "trainer/models/weight_files.cpp", "launcher/sweep_record.cpp"],
    "tokenizer_files": ["datasets/tokenizers/json_view.cpp", "datasets/tokenizers/tokenizer_json.cpp",
                        "datasets/tokenizers/tokenizer_spec.cpp", "datasets/tokenizers/vocabulary.cpp"],
    "tokenizer_text": ["datasets/tokenizers/added_tokens.cpp", "datasets/tokenizers/bert_normalizer.cpp",
                       "datasets/tokenizers/bpe_model.cpp", "datasets/tokenizers/byte_level.cpp",
                       "datasets/tokenizers/hub_tokenizer.cpp", "datasets/tokenizers/trie.cpp",
                       "datasets/tokenizers/unicode.cpp", "datasets/tokenizers/word_piece_model.cpp"],
    "token_store": ["datasets/token_store.cpp"],
    "readers": ["datasets/readers/conll.cpp", "datasets/readers/examples.cpp", "datasets/readers/jsonl.cpp",
                "datasets/readers/record.cpp", "datasets/readers/separated.cpp", "datasets/readers/source_bytes.cpp",
                "datasets/readers/text_lines.cpp", "datasets/readers/raw_dataset.cpp"],
}


def main():
    build, targets = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    raw = []
    for target in targets:
        raw.append(build / f"{target}.profraw")
        corpus = sorted((ROOT / "tests" / "fuzz" / "corpus" / target).iterdir())
        subprocess.run([build / f"fuzz_{target}", *corpus], check=True, stderr=subprocess.DEVNULL,
                       env={**os.environ, "LLVM_PROFILE_FILE": str(raw[-1])})
    merged = build / "merged.profdata"
    subprocess.run(["llvm-profdata", "merge", "-sparse", "-o", merged, *raw], check=True)
    programs = [build / f"fuzz_{target}" for target in targets]
    objects = [argument for program in programs[1:] for argument in ("-object", program)]
    report = json.loads(subprocess.run(["llvm-cov", "export", "-summary-only", f"-instr-profile={merged}", programs[0],
                                        *objects], check=True, capture_output=True, text=True).stdout)
    lines = {os.path.relpath(entry["filename"], ROOT): entry["summary"]["lines"] for entry in report["data"][0]["files"]}
    total = reached = 0
    for target in targets:
        for name in PARSERS[target]:
            total += lines[name]["count"]
            reached += lines[name]["covered"]
            print(f"{lines[name]['percent']:6.1f} %  {lines[name]['covered']:4} of {lines[name]['count']:4}  {name}")
    share = 100 * reached / total
    print(f"{share:6.1f} %  {reached:4} of {total:4}  together")
    print(f"line by line: llvm-cov show -instr-profile={merged} {' '.join(map(str, [programs[0], *objects]))} FILE")
    return 0 if share >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
