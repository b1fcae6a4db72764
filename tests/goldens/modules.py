"""What transformers computes inside a model, module by module, for `tamarack debug compare --with`.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0
    venv/bin/python tests/goldens/modules.py MODEL OUT.safetensors [--tokens 1,5,9,2]

MODEL is a directory or an id on the hub. OUT has `input_ids`, `logits`, and the output of every module
that is a tensor, [tokens, ..] in f32, under the module's name.
"""

import argparse

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("out")
parser.add_argument("--tokens", default="1,5,9,2,7,3,11,4", help="ids, separated by commas")
arguments = parser.parse_args()

ids = torch.tensor([[int(t) for t in arguments.tokens.split(",")]])
model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32, attn_implementation="eager").eval()
found = {}


def keep(name):
    def hook(module, inputs, output):
        # [1, tokens, ..] as decoders have it; the first of several, as attention returns them.
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(output, torch.Tensor) and output.shape[:2] == ids.shape:
            found[name] = output[0].float().contiguous().clone()

    return hook


for name, module in model.named_modules():
    module.register_forward_hook(keep(name))
with torch.no_grad():
    found["logits"] = model(ids, use_cache=False).logits[0].float().contiguous().clone()
found.pop("", None)
found["input_ids"] = ids[0].to(torch.int32)
save_file(found, arguments.out)
print(f"{arguments.out}: {len(found)} tensors")
