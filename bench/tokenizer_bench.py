#!/usr/bin/env python3
"""Tokenizer equality and speed: dtrain beside the Python library `tokenizers`, one thread each, in one run.

usage: tokenizer_bench.py PROGRAM TOKENIZER_FOLDER FILE.jsonl[.gz]... [--rounds 5] [--field text] [--max-lines N]

PROGRAM is build/tokenizer_bench. All texts of all files are encoded by both; the ids must be equal. The rounds alternate between
the two; the medians and their ratio are printed. The library encodes batches of 1,000 texts.
"""
import argparse
import array
import gzip
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402  (reads the environment)


def read_texts(paths, field, limit):
    for path in paths:
        opener = gzip.open if path.endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines):
                if number == limit:
                    break
                yield json.loads(line)[field]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--field", default="text")
    parser.add_argument("--max-lines", type=int)
    options = parser.parse_args()

    texts = list(read_texts(options.files, options.field, options.max_lines))
    library = tokenizers.Tokenizer.from_file(os.path.join(options.folder, "tokenizer.json"))
    library.no_truncation()
    library.no_padding()
    with tempfile.TemporaryDirectory() as scratch:
        texts_path, ids_path = os.path.join(scratch, "texts"), os.path.join(scratch, "ids")
        with open(texts_path, "wb") as out:
            for text in texts:
                data = text.encode("utf-8")
                out.write(struct.pack("<I", len(data)) + data)
        ours, theirs, wanted = [], [], None
        for _ in range(options.rounds):
            answer = subprocess.run([options.program, options.folder, texts_path, ids_path], check=True,
                                    stdout=subprocess.PIPE).stdout
            report = json.loads(answer)
            ours.append(report["seconds"])
            begin = time.perf_counter()
            encodings = [library.encode_batch(texts[i:i + 1000]) for i in range(0, len(texts), 1000)]
            theirs.append(time.perf_counter() - begin)
            if wanted is None:
                wanted = array.array("i")
                for batch in encodings:
                    for encoding in batch:
                        wanted.append(len(encoding.ids))
                        wanted.extend(encoding.ids)
            del encodings
        got = array.array("i")
        with open(ids_path, "rb") as lines:
            got.frombytes(lines.read())
    print(f"{options.folder}: {report['texts']} texts, {report['bytes']} bytes, {report['ids']} ids; "
          f"library {tokenizers.__version__}")
    print("dtrain  seconds", " ".join(f"{x:.3f}" for x in ours), f"median {statistics.median(ours):.3f}"
          f" (load {report['load_seconds']:.3f})")
    print("library seconds", " ".join(f"{x:.3f}" for x in theirs), f"median {statistics.median(theirs):.3f}")
    print(f"ratio {statistics.median(theirs) / statistics.median(ours):.2f}")
    if got != wanted:
        place = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
        print(f"DIFFERENT at integer {place} of the id streams")
        return 1
    print("ids are EQUAL")
    return 0


if __name__ == "__main__":
    sys.exit(main())
