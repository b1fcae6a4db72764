"""What `transformers` computes with the real Gemma 3 270M, a base model, in f32.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0 gguf accelerate
    venv/bin/python tests/goldens/gemma.py "$(tests/fetch-models gemma)"

Writes gemma-3-270m.json. The weights are the GGUF's, dequantized; nothing is rounded.
"""

import json
import sys
from pathlib import Path

sys.path.pop(0)  # the folder of this script has a gguf.py, which is not the package of that name

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

GREEDY = 16
PROMPTS = [
    "The capital of France is the city of",
    "1, 2, 3, 4, 5, 6, 7,",
    "Water freezes at a temperature of zero degrees Celsius, and boils at",
    "def add(a, b):\n    return",
]
# As long as a few windows of a story go; no model has seen it.
TEXT = (
    "The harbour master kept two clocks on his desk, one for the tide and one for the trains. When the ferries were late, he turned "
    "the first of them to the wall, because he said that a man can only be wrong about one thing at a time. On the morning of the "
    "storm both clocks stopped. He wrote the hour into his book from memory, went down to the pier, and counted the boats. There "
    "should have been eleven, and there were twelve. The twelfth was painted green, had no name on its side, and carried a single "
    "passenger, a woman with a suitcase and a birdcage. \"You are early,\" he told her. \"No,\" she said, \"it is only that your "
    "clocks have stopped.\" She asked for a room with a window to the north, paid for three weeks in coins that he had never seen "
    "before, and wanted to know whether the library was open on Sundays."
)


@torch.no_grad()
def main(path):
    folder, name = str(Path(path).parent), Path(path).name
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    logits = lambda ids: model(torch.tensor([ids]), use_cache=False).logits[0]
    items = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt).input_ids
        greedy, margins = [], []
        while len(greedy) < GREEDY:
            best = logits(ids + greedy)[-1].topk(2)
            greedy.append(best.indices[0].item())
            margins.append(round((best.values[0] - best.values[1]).item(), 5))
        items.append({"prompt": prompt, "prompt_ids": ids, "greedy_ids": greedy, "margins": margins, "text": tokenizer.decode(greedy)})
        print(items[-1]["text"], min(margins))
    ids = tokenizer(TEXT).input_ids
    rows = logits(ids).log_softmax(dim=-1)
    nll = [round(-rows[i, token].item(), 6) for i, token in enumerate(ids[1:])]
    print(f"{len(nll)} tokens, perplexity {torch.tensor(nll).mean().exp().item():.4f}, layer types {model.config.layer_types}")
    out = {"items": items, "nll_text": TEXT, "nll_ids": ids, "nll": nll}
    Path(__file__).with_name("gemma-3-270m.json").write_text(json.dumps(out) + "\n")


main(sys.argv[1])
