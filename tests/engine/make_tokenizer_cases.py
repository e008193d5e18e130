"""Writes fixtures/tokenizer_cases.json: what the Python package `tokenizers` makes of text in many scripts.

Run it as `python -m tests.engine.make_tokenizer_cases` (needs `pip install tokenizers`);
the tests only read the result.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parents[2] / "build_wasm" / "demo_model" / "tokenizer.json"
OUTPUT = Path(__file__).parent / "fixtures" / "tokenizer_cases.json"
LONG_REPEAT = 18

TEXTS = {
    "plain": "Hello, world! The quick brown fox jumps over the lazy dog.",
    "empty": "",
    "one space": " ",
    "leading and trailing spaces": "   three before, two after  ",
    "space runs": "a  b   c    d                 e",
    "newline runs": "\n\n\na\n\n\n\n\n\n\n\nb\r\n\r\nc\n",
    "tabs": "\tif (x) {\n\t\treturn\t1;\n\t}",
    "digits": "0123456789 3.14159 1,000,000",
    "latin accents": "Crème brûlée, Ærø, Łódź, ñandú, İstanbul ǅ",
    "combining marks": "e\u0301a\u0308\u0323 n\u0303",
    "greek": "Η γρήγορη αλεπού",
    "cyrillic": "Съешь ещё этих мягких булок",
    "hebrew": "שָׁלוֹם עולם",
    "arabic": "السَّلامُ عليكم",
    "devanagari": "नमस्ते दुनिया",
    "bengali": "হ্যালো বিশ্ব",
    "tamil": "வணக்கம் உலகம்",
    "thai": "สวัสดีชาวโลก",
    "georgian": "გამარჯობა",
    "armenian": "Բարեւ",
    "ethiopic": "ሰላም ልዑል",
    "khmer": "សួស្តី",
    "tibetan": "བཀྲ་ཤིས",
    "cherokee": "ᎣᏏᏲ",
    "chinese": "你好,世界。敏捷的棕色狐狸",
    "japanese": "こんにちは世界、カタカナ",
    "korean": "안녕하세요 세계",
    "astral scripts": "𐎠𐎡 𓀀𓂀 𒀀 𐤀 𝔘𝔫𝔦 𞤀𞤣",
    "rare han": "𠮷野家 𪚥",
    "emoji": "😀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇷 1️⃣",
    "noncharacters": "a\ufdd0b\ufdd1c\uffff",
    "byte order mark and zero width": "\ufeffx\u200b\u200dy\u2060",
    "controls": "\x00\x01\x1b[0m\x7f\x85",
    "direction marks": "\u202eabc\u202c",
    "the space symbol itself": "▁ ▁▁a",
    "replacement character": "\ufffd",
    "byte pieces typed": "<0x0A><0xE2>",
    "control tokens typed": '<bos><|turn>user\nhi<turn|><eos> <|"|> <pad><unk><mask>',
    "almost control tokens": "<|turn> < |turn> <|turn <<bos>> |>",
    "markdown": "# T\n\n- **a** `b`\n\n```py\ndef f(x):\n    return x  # c\n```\n| a | b |\n|---|---|",
    "html": "<table><tr><td>&nbsp;</td></tr></table>",
    "url": "https://example.com/a?b=c&d=%20#e",
}
PROMPTS = [
    "<bos><|turn>user\nHello there<turn|>\n<|turn>model\n",
    "<bos><|turn>system\nBe brief.<turn|>\n"
    "<|turn>user\nЧто?<turn|>\n<|turn>model\nНичего<turn|>\n<|turn>user\n  x  <turn|>\n",
    "<bos><bos><|tool_call>x<tool_call|>",
]


def main() -> None:
    """Text is encoded by a tokenizer without its control tokens, prompts by the whole one."""
    import tokenizers

    definition: dict[str, Any] = json.loads(TOKENIZER.read_text(encoding="utf-8"))
    definition["added_tokens"] = [token for token in definition["added_tokens"] if not token["special"]]
    text = tokenizers.Tokenizer.from_str(json.dumps(definition))
    whole = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    long_ids = text.encode("\n".join(TEXTS.values()) * LONG_REPEAT, add_special_tokens=False).ids
    cases = {
        "made_by": f"tests/engine/make_tokenizer_cases.py with tokenizers {tokenizers.__version__}",
        "texts": [
            {"name": name, "text": value, "ids": text.encode(value, add_special_tokens=False).ids}
            for name, value in TEXTS.items()
        ],
        "long": {
            "repeat": LONG_REPEAT,
            "count": len(long_ids),
            "sha256": hashlib.sha256(",".join(map(str, long_ids)).encode()).hexdigest(),
        },
        "prompts": [{"text": value, "ids": whole.encode(value, add_special_tokens=False).ids} for value in PROMPTS],
    }
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(cases, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
