#!/usr/bin/env python3
"""Records what the Python library `tokenizers` makes of reviews, hostile texts and every code point.

usage: record_tokenizers.py [REVIEWS.jsonl]

Writes tests/data/tokenizers/golden.json; with an argument also tests/data/tokenizers/reviews.jsonl, the 250 shortest of the first
500 reviews of that file (Large Movie Review Dataset). Each variant of a tokenizer is a JSON merge patch (RFC 7386) of one of
the files beside the golden file. Takes about five minutes.
"""
import json
import pathlib
import random
import struct
import sys
import zlib

from tokenizers import Tokenizer, __version__, normalizers

DATA = pathlib.Path(__file__).resolve().parents[1] / "data" / "tokenizers"


def added(first_id, known_ids, *tokens):
    result = []
    for content, flags in tokens:
        token = {"content": content, "special": False, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False}
        token.update(dict.fromkeys(flags.split(), True))
        token["id"] = known_ids.get(content, first_id)
        first_id += content not in known_ids
        result.append(token)
    return result


FLAGGED = (("<left>", "lstrip special"), ("<right>", "rstrip special"), ("<both>", "lstrip rstrip"), ("word", "single_word"),
           ("NORM\u00c9", "normalized"), ("Many Words", "normalized single_word lstrip"), ("<le", ""),
           ("\u6f22\u5b57", "normalized"), ("<bothx>", "special"))
SPECIAL = [{"id": i, "content": c, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False} for i, c in ((0, "[PAD]"), (100, "[UNK]"), (101, "[CLS]"), (102, "[SEP]"), (103, "[MASK]"))]
END = [{"id": 50256, "content": "<|endoftext|>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": True}]
VARIANTS = {
    "gpt2": ("gpt2", {}),
    "bert": ("bert-base-uncased", {}),
    "bert cased": ("bert-base-uncased", {"normalizer": {"lowercase": False}}),
    "bert lower, accents kept": ("bert-base-uncased", {"normalizer": {"strip_accents": False}}),
    "bert accents only": ("bert-base-uncased", {"normalizer": {
        "clean_text": False, "handle_chinese_chars": False, "strip_accents": True, "lowercase": False}}),
    "bert bare": ("bert-base-uncased", {"normalizer": None, "post_processor": {
        "type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}, "decoder": {"cleanup": False},
        "model": {"max_input_chars_per_word": 5}}),
    "bert added": ("bert-base-uncased", {"added_tokens": SPECIAL + added(30522, {"word": 2773}, *FLAGGED)}),
    "gpt2 added": ("gpt2", {"added_tokens": END + added(50257, {"word": 4775}, *FLAGGED), "pre_tokenizer": {"add_prefix_space": True}}),
    "gpt2 uncut": ("gpt2", {"pre_tokenizer": {"use_regex": False}, "decoder": None}),
}
CODE_POINT_VARIANTS = ["gpt2", "bert", "bert cased", "bert lower, accents kept", "bert accents only"]
BLOCK = 4096


def merge_patch(target, patch):
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def load(name):
    base, patch = VARIANTS[name]
    document = merge_patch(json.loads((DATA / base / "tokenizer.json").read_text(encoding="utf-8")), patch)
    for key in ("normalizer", "decoder"):
        document.setdefault(key, None)
    return Tokenizer.from_str(json.dumps(document))


def code_point_context(c):
    """What a code point meets: letters, digits, space, itself, a contraction, marks of three classes, an ideograph."""
    return f"a{c}b {c} {c}{c}'s{c}1 {c}\u0301\u0323{c}\u302a,{c}\u6f22\n{c}"


def code_point_digests(tokenizer):
    digests = []
    for first in range(0, 0x110000, BLOCK):
        digest = 0
        for c in range(first, first + BLOCK):
            if 0xD800 <= c <= 0xDFFF:
                continue
            ids = tokenizer.encode(code_point_context(chr(c))).ids
            digest = zlib.crc32(struct.pack(f"<{len(ids) + 1}i", len(ids), *ids), digest)
        digests.append(digest)
    return digests


def normalizer_context(c):
    """Ids hide much of what a normalizer does behind [UNK], so its text is recorded too: here beside non-starters that stay."""
    return f"{c}\u302e{c}\u0334\U0001d165{c}\u0301a{c}"


def normalizer_record(clean_text, handle_chinese_chars, strip_accents, lowercase, texts):
    normalize = normalizers.BertNormalizer(clean_text=clean_text, handle_chinese_chars=handle_chinese_chars,
                                           strip_accents=strip_accents, lowercase=lowercase).normalize_str
    digests = []
    for first in range(0, 0x110000, BLOCK):
        digest = 0
        for c in range(first, first + BLOCK):
            if not 0xD800 <= c <= 0xDFFF:
                digest = zlib.crc32(normalize(normalizer_context(chr(c))).encode("utf-8"), digest)
        digests.append(digest)
    return {"options": [clean_text, handle_chinese_chars, strip_accents, lowercase],
            "texts": [normalize(text) for text in texts], "code_points": digests}


def combining_texts():
    generator = random.Random(7)
    pool = "a\u00e9\u0301\u0323\u0334\u0345\u302a\u302e\u302f\u0f71\u0f72\u0f74\u1e69\U0001d165\U0001d16d\U0001d16e\U00016ff0\uac01\u05b0\u094d\u3099"
    return ["".join(generator.choice(pool) for _ in range(12)) for _ in range(100)]


def hostile_texts():
    texts = [
        "", " ", "  ", "\n", "\t \n", "a", "\0", "a\0b", "\x7f", "\x85", "a\x85b", "\u2028a\u2029", "\u00a0a\u00a0\u00a0b", "\u3000x",
        "\ufeffBOM", "it's they're I'd we'll you've I'm can't 's 'S 'LL '", "''s'", "' s", "x'sx", "?'s", " 's", "'l", "'r", "'v",
        "a  b", "a   b", "a \n b", "a\n\nb", "  a", "a  ", "a \t", "\r\n\r\n", " \u00a0a", "\u00a0 a", " \u2003 x",
        "Hello, World!", "HELLO", "hello-world", "3.14 1,000 1st 2nd", "\u00b2\u00bd\u2167\u0664", "x=1;y=2", "C:\\path\\file.txt",
        "<br /><br />", "[CLS] [SEP] [PAD] [MASK] [UNK]", "[cls]", "[CLS][CLS]", "a[SEP]b", "##ing", "un##related ##",
        "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>", "<|endoftext", "<|ENDOFTEXT|>",
        "\u00e9t\u00e9 \u00c9T\u00c9 e\u0301 E\u0301 \u1e9b\u0323", "na\u00efve caf\u00e9 \u00fcber \u00df \u1e9e \u0130 \u0131 I\u0307", "\u03a3\u03a3 \u03c3\u03c2 \u039f\u0394\u039f\u03a3",
        "\u0130stanbul", "\u01c5 \u01c4 \u01c6", "\ufb01 \ufb03", "\u212b \u2126", "\u0344", "\u0958", "\u1e69 s\u0307\u0323 s\u0323\u0307",
        "\u4e2d\u6587\u5b57\u7b26", "\u6f22\u5b57\u304b\u306a\u30ab\u30ca", "\ud55c\uad6d\uc5b4 \uac00\uac01\ud7a3", "\u1112\u1161\u11ab", "\uf900\ufaff \U0002f800", "\U00020000\U0002b820\U0002b920",
        "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea", "\u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940", "\u202eRTL\u202c \u200f", "a\u200bb\u200cc\u200dd\u2060e", "soft\u00adhyphen",
        "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd \u2764\ufe0f \U0001f1e9\U0001f1ea", "\U0001f600x\U0001f600", "\u2026\u2014\u2018\u2019\u201c\u201d", "$\u20ac\u00a3\u00a5+<=>^`|~",
        "\ufffd", "a\ufffdb", "\uffff\ufffe", "\U0010ffff", "\ue000", "\u0378", "\U000e0041", "\U0001d165\U0001d16e", "a\U0001d165\u0301\u0300b",
        "a" * 100, "a" * 101, "\u00e9" * 100, "\u00e9" * 101, "x" * 300, "ab" * 500, "\u6f22" * 200, " " * 300, "\n" * 101 + "x", "!" * 300,
        "1" * 300, "\u0301" * 300, "a" + "\u0301\u0323" * 200 + "b", "'" * 50 + "s", "the " * 100, "supercalifragilisticexpialidocious",
        "\u302a\u0301\u302b a\u302a\u0323b", "\U00016ff0\u0334x", "\u0f71\u0f72\u0f74 \u0f73\u0f75",
        "x<left>y", "x   <left>   y", "x \u00a0\n<right>\u3000 y", "a <both> b", "<both> <both>", "  <left><right>  <both>  ", "<left", "<leftx>",
        "word", "words", "a word b", "sword", "word.", "_word", "word\u0301", "\u6f22word", "word<left>", "9word word9 word-word wordword word",
        "NORM\u00c9", "norme", "norm\u00e9", "NORME\u0301", "xnorm\u00e9x", "Many Words", "many words", "toomany wordsx  many words", "MANY  WORDS",
        "\u6f22\u5b57", "a\u6f22\u5b57b", "\u6f22 \u5b57", "<bothx> <both>x", "<le<left>", "[CLS]<left>[SEP]",
    ]
    texts = [text.encode("utf-8", "surrogatepass") for text in texts]
    texts += [
        b"\xff", b"a\xffb", b"\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82\xe2\x82\xac", b"\xf0\x9f\x98", b"\xf0\x9f\x98 x", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xc0\x80",
        b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\x80\x80", b"\xfe\xff", b"abc\xe9 caf\xe9", b"\xf1\x80\x80",
        b"<|endo\xfftext|>", b"[CLS\xff]", b"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", b"\xf8\x88\x80\x80\x80",
    ]
    generator = random.Random(20240607)
    pools = [lambda: chr(generator.randrange(0x20, 0x7f)), lambda: chr(generator.randrange(0x80)), lambda: chr(generator.randrange(0x80, 0x800)),
             lambda: chr(generator.choice((generator.randrange(0x800, 0xd800), generator.randrange(0xe000, 0x110000)))),
             lambda: generator.choice("  \n\t'.,abcst\u0301\u0323\u302a\u00e9\u0130\u6f22\u200d\U0001f600"),
             lambda: generator.choice(("[CLS]", "<|endoftext|>", "<left>", "<right>", "<both>", "word", "norm\u00c9", "many words", " ", "  ", "x", "\u00a0"))]
    for i in range(150):
        chosen = generator.sample(pools, 3)
        texts.append("".join(generator.choice(chosen)() for _ in range(generator.randrange(1, 40))).encode("utf-8"))
    parts = ("inter", "nation", "al", "ization", "the", "un", "re", "ing", "str", "ength", "s", "xq", "aaa", "mississippi")
    for i in range(60):  # words on both sides of the length at which dtrain changes the way it merges
        texts.append("".join(generator.choice(parts) for _ in range(generator.randrange(5, 40))).encode("utf-8"))
    for i in range(40):
        texts.append(bytes(generator.choice((0x41, 0x80, 0xbf, 0xc3, 0xe2, 0xed, 0xf0, 0xf4, generator.randrange(256)))
                           for _ in range(generator.randrange(1, 16))))
    return texts


def main():
    reviews_path = DATA / "reviews.jsonl"
    if len(sys.argv) > 1:
        with open(sys.argv[1], encoding="utf-8", newline="\n") as lines:
            rows = [json.loads(next(lines))["text"] for _ in range(500)]
        with open(reviews_path, "w", encoding="utf-8", newline="\n") as out:
            for text in sorted(rows, key=len)[:250]:
                out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    with open(reviews_path, encoding="utf-8", newline="\n") as lines:
        reviews = [json.loads(line)["text"] for line in lines]
    texts = hostile_texts()
    golden = {"library": __version__, "texts": [text.hex() for text in texts], "variants": {}}
    combining = combining_texts()
    golden["combining_texts"] = combining
    golden["normalizers"] = [normalizer_record(*options, combining) for options in (
        (True, True, True, True), (True, True, False, False), (False, False, True, False), (False, True, False, True))]
    for name, (base, patch) in VARIANTS.items():
        tokenizer = load(name)
        tokenizer.no_truncation()
        record = {"base": base, "patch": patch}
        ids = [tokenizer.encode(text.decode("utf-8", "replace")).ids for text in texts]
        record["ids"] = ids
        record["decoded"] = [tokenizer.decode(x, skip_special_tokens=False) for x in ids]
        # Where the first 1 to 3 ids end inside a character, the decoder has something to replace.
        record["decoded_without_special"] = [tokenizer.decode(x[:3], skip_special_tokens=True) for x in ids]
        record["reviews"] = [zlib.crc32(struct.pack(f"<{len(x)}i", *x)) for x in
                             (tokenizer.encode(text).ids for text in reviews)]
        tokenizer.enable_truncation(16)
        record["truncated"] = [tokenizer.encode(text).ids for text in reviews[:3]]
        tokenizer.no_truncation()
        if name in CODE_POINT_VARIANTS:
            record["code_points"] = code_point_digests(tokenizer)
        golden["variants"][name] = record
        print(name, sum(map(len, ids)), flush=True)
    (DATA / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
