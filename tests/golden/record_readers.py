#!/usr/bin/env python3
"""Writes small Parquet files as pyarrow writes them, for tests/unit/datasets/readers_parquet_test.cpp.

    record_readers.py [FOLDER]      default: tests/data/readers (a second)

The tests know the values: row i has the text "text i" with an umlaut, the label i % 2, and so on, as the code below says.
"""
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "data" / "readers"
ROWS = 10
TEXTS = [f"text {i} ä" for i in range(ROWS)]
LABELS = [i % 2 for i in range(ROWS)]
WORDS = [[f"word{i}"] * (1 + i % 3) for i in range(ROWS)]
TAGS = [[i % 3] * (1 + i % 3) for i in range(ROWS)]
TAG_NAMES = [[("O", "B-x", "I-x")[tag] for tag in tags] for tags in TAGS]
PAIRS = [{"en": f"house {i}", "de": f"Haus {i}"} for i in range(ROWS)]


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)

    def write(name, columns, schema=None, **options):
        pq.write_table(pa.table(columns, schema=schema), folder / f"{name}.parquet", **options)

    def nested(values, nullable=True):
        return pa.array(values, pa.struct([pa.field(name, pa.string(), nullable) for name in ("en", "de")]))

    # Another column in front: only those that are wanted are read. The checksums make any damage of a page known.
    write("plain", {"id": list(range(ROWS)), "text": TEXTS, "label": LABELS}, compression="none", use_dictionary=False,
          write_page_checksum=True)
    write("snappy", {"text": TEXTS, "label": LABELS}, compression="snappy")
    write("zstd", {"text": TEXTS, "label": LABELS}, compression="zstd", data_page_version="2.0")
    write("groups", {"text": TEXTS, "label": LABELS}, row_group_size=3)
    # Texts in a dictionary also once they are read, and names as labels.
    write("dictionary", {"text": pa.array(TEXTS).dictionary_encode(),
                         "label": pa.array([("neg", "pos")[i] for i in LABELS]).dictionary_encode()})
    write("types", {"large": pa.array(TEXTS, pa.large_string()),
                    "int8": pa.array(LABELS, pa.int8()), "uint8": pa.array(LABELS, pa.uint8()),
                    "int16": pa.array(LABELS, pa.int16()), "uint16": pa.array(LABELS, pa.uint16()),
                    "int32": pa.array(LABELS, pa.int32()), "uint32": pa.array(LABELS, pa.uint32()),
                    "int64": pa.array(LABELS, pa.int64()), "uint64": pa.array(LABELS, pa.uint64()),
                    "float": pa.array([i / 4 for i in range(ROWS)], pa.float32()),
                    "double": pa.array([i / 4 for i in range(ROWS)], pa.float64()),
                    "bool": pa.array([i == 1 for i in LABELS]),
                    "bytes": pa.array([text.encode() for text in TEXTS]),
                    "latin1": pa.array([b"caf\xe9"] * ROWS).view(pa.string()),
                    "flags": pa.array([[i, 1 - i] for i in LABELS], pa.list_(pa.int64(), 2)),
                    "dotted.name": TEXTS})
    write("words", {"tokens": WORDS, "ner_tags": TAGS, "names": TAG_NAMES,
                    "large": pa.array(WORDS, pa.large_list(pa.large_string())),
                    "short": [tags[:-1] for tags in TAGS]}, row_group_size=4)
    write("pairs", {"id": list(range(ROWS)), "translation": nested(PAIRS)}, row_group_size=4)
    # Row 7 (from 1) has the null, in the second row group.
    write("nulls", {"text": TEXTS[:6] + [None] + TEXTS[7:], "good": TEXTS, "label": LABELS,
                    "no_label": pa.array(LABELS[:6] + [None] + LABELS[7:], pa.int64()),
                    "tokens": WORDS[:6] + [["a", None]] + WORDS[7:], "ner_tags": [[0] * len(words) for words in WORDS],
                    "no_words": WORDS[:6] + [[]] + WORDS[7:],
                    "pair": nested(PAIRS[:6] + [None] + PAIRS[7:]),
                    "half": nested(PAIRS[:6] + [{"en": "x", "de": None}] + PAIRS[7:]),
                    "outer": nested(PAIRS[:6] + [None] + PAIRS[7:], nullable=False),
                    "all": pa.nulls(ROWS, pa.string())}, row_group_size=5)
    write("empty", {"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())})


if __name__ == "__main__":
    main()
