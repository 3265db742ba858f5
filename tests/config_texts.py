"""Random config texts, the same for a seed: a valid one that was damaged, and ones that a grammar makes."""

import random
from collections.abc import Iterator

VALID = """\
data:
  data_root: images   # or a folder
  class_names: [None, Roadwork]
  positive_classes: [Roadwork]
  dataloader: {batch_size: 32, num_workers: 4}
split:
  ratios: {train: 0.4, val_select: 0.2, val_calib: 0.2, test: 0.2}
model:
  backbone_id: owner/vit
  num_classes: 2
training:
  optimizer: {lr: 1e-4}
  early_stopping: {monitor: val_select/acc, mode: max, patience: 10}
explora: {mask_ratio: [0.1, 0.5]}
export:
  policy: sweep
hardware:
  memory: 16Gi
  node_selector: {pool: gpu}
  tolerations: [{key: batch, operator: Equal, value: "yes"}]
"""
KEYS = [
    "data",
    "split",
    "model",
    "training",
    "export",
    "hardware",
    "data_root",
    "seed",
    "policy",
    "ratios",
    "train",
    "backbone_id",
    "num_classes",
    "class_names",
    "tolerations",
    "node_selector",
    "cpu",
    "explora",
    "mask_ratio",
    "optimizer",
    "lr",
    "<<",
    "1",
    "null",
    "true",
    "2026-01-01",
    "__class__",
    "é",
    '"a b"',
    "? [a]",
    "=",
    "~",
]
SCALARS = [
    "1",
    "-1",
    "0",
    "1e400",
    "9" * 400,
    "9" * 5000,
    "0x" + "f" * 30,
    "1:2:3",
    "010",
    ".inf",
    "-.inf",
    ".nan",
    "no",
    "on",
    "true",
    "null",
    "~",
    "",
    "2026-01-01",
    "2026-13-45",
    "2026-01-01T00:00:00Z",
    "x" * 300,
    '"\\0"',
    '"\\ud800"',
    '"\\U00110000"',
    '"\\e[31m"',
    "'",
    '"',
    "!!python/object/apply:os.getcwd []",
    "!!int x",
    "!!timestamp x",
    "!!binary a",
    "!!set {a}",
    "!x y",
    "*a",
    "&a b",
    "&a [*a]",
    "*b",
    "@",
    "`",
    "%",
    "|",
    ">",
    "- a",
    "sweep",
    "gs://x",
    "gs://b//c",
    "ftp://a/b",
    "16Gi",
    "16G B",
    "4x",
    "[a, b]",
    "{a: b}",
    "=",
    "https://u:p@h/x",
]
NOISE = [
    "\0",
    "\t",
    "\r",
    "\n",
    " ",
    "\x07",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ud800",
    "é",
    "😀",
    ":",
    ": ",
    "-",
    "- ",
    "#",
    "&a ",
    "*a",
    "!",
    "!!",
    "|",
    ">",
    "{",
    "}",
    "[",
    "]",
    ",",
    "?",
    "%",
    "---\n",
    "...\n",
    "'",
    '"',
    "\\",
    "<<: ",
]


def config_texts(count: int, seed: int) -> Iterator[bytes]:
    """`count` texts, as files hold them."""
    draw = random.Random(seed)
    for _ in range(count):
        text = draw.choice((_damaged, _shuffled, _made))(draw)
        yield text.encode(draw.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig")), "surrogatepass")


def _damaged(draw: random.Random) -> str:
    """Some characters of the valid text replaced, put in or taken out."""
    text = VALID
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice(["", *NOISE, chr(draw.randrange(0x500))]) + text[at + draw.randint(0, 3) :]
    return text


def _shuffled(draw: random.Random) -> str:
    """Lines of the valid text doubled, moved, dropped, or with another value."""
    lines = VALID.splitlines()
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(lines))
        line = lines[at]
        lines[at : at + 1] = draw.choice(
            ([line, line], [], [line, draw.choice(lines)], [line.partition(":")[0] + ": " + draw.choice(SCALARS)])
        )
        lines = lines or [""]
    return "\n".join(lines)


def _made(draw: random.Random) -> str:
    """A text of the grammar's own, sometimes with very many levels or names."""
    if draw.random() < 0.1:
        many = draw.choice((100, 3000))
        return draw.choice(("[" * many, "{a: " * many + "}" * many, "- " * many, "a: &a [" + "*a," * many + "]"))
    return "\n".join(f"{draw.choice(KEYS)}: {_value(draw, 0)}" for _ in range(draw.randint(0, 8)))


def _value(draw: random.Random, depth: int) -> str:
    if depth < 4 and draw.random() < 0.5:
        inner = [_value(draw, depth + 1) for _ in range(draw.randint(0, 4))]
        if draw.random() < 0.3:
            return "[" + ", ".join(inner) + "]"
        return "{" + ", ".join(f"{draw.choice(KEYS)}: {value}" for value in inner) + "}"
    return draw.choice(SCALARS)
