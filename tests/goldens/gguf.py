"""The tiny models of architectures/ and llama/ as GGUF files, by llama.cpp's own converter.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0 gguf
    # llama.cpp's converter comes in the source package of llama-cpp-python 0.3.36, in vendor/llama.cpp
    venv/bin/python tests/goldens/gguf.py CONVERTER [TYPE/CASE...]

CONVERTER is the folder of convert_hf_to_gguf.py. Writes gguf/TYPE-CASE.gguf for CASES, or for the given ones,
without a tokenizer: the tiny models have none. What they compute is in the golden of the same case.
"""

import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

HERE = Path(__file__).parent

# For each type that GGUF has, the cases that it can express.
CASES = """
apertus/plain cohere/plain cohere2/every_fourth deepseek_v2/greedy deepseek_v3/interleaved ernie4_5/biases ernie4_5/plain exaone4/every_fourth exaone4/full gemma/plain gemma2/by_head
gemma3_text/every_sixth gemma3n_text/shared glm4/plain glm4/unbiased glm4_moe/plain gpt_oss/plain granite/multipliers hunyuan_v1_dense/biases internlm2/plain lfm2/layer_types llama/biases
llama/llama3_rope llama/mistral_full llama/tied llama/yarn minicpm/plain mixtral/plain olmo/plain olmo2/plain olmoe/plain phi/wide phi3/long phi3/partial
qwen2/plain qwen2_moe/shared qwen3/wide_heads qwen3_moe/plain seed_oss/biases seed_oss/plain smollm3/every_fourth starcoder2/plain
""".split()

# What the converter reads and our configs leave to defaults.
CLASSES = {"internlm2": "InternLM2ForCausalLM", "minicpm": "MiniCPMForCausalLM"}
COMPLETED = {"cohere2": {"rotary_pct": 1.0}}


def completed(folder, to):
    """A copy of a model with what the converter insists on."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("golden.safetensors"))
    config = json.loads((to / "config.json").read_text())
    kind = config["model_type"]
    config.setdefault("architectures", [CLASSES.get(kind) or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]])
    (to / "config.json").write_text(json.dumps(config | COMPLETED.get(kind, {})))
    vocab = {str(i): i for i in range(config["vocab_size"])}
    (to / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": {"vocab": vocab}}))


def widened(folder):
    """The weights in f32: the converter adds 1 to some norms in the type that they are stored in, which rounds."""
    dtypes = set()
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        dtypes |= {t.dtype for t in tensors.values()}
        save_file({n: t.float() for n, t in tensors.items()}, file)
    return dtypes


def convert(folder, out):
    from conversion import ModelType, get_model_class
    from conversion.base import ModelBase, get_model_architecture
    import gguf

    with tempfile.TemporaryDirectory() as work, torch.inference_mode():
        copy = Path(work) / "model"
        completed(folder, copy)
        model_class = get_model_class(get_model_architecture(ModelBase.load_hparams(copy, False), ModelType.TEXT))
        model_class.set_vocab = lambda self: None
        dtypes, types = widened(copy), gguf.LlamaFileType
        stored = {torch.float16: types.MOSTLY_F16, torch.bfloat16: types.MOSTLY_BF16, torch.float32: types.ALL_F32}
        model_class(copy, stored[dtypes.pop()], out, eager=True, model_name=folder.name).write()


def main(converter, names):
    sys.path[:0] = [converter, converter + "/gguf-py"]
    logging.disable(logging.WARNING)
    for name in names or CASES:
        family = "." if name.startswith("llama/") else "architectures"
        out = HERE / "gguf" / (name.replace("/", "-") + ".gguf")
        out.parent.mkdir(exist_ok=True)
        convert(HERE / family / name, out)
        print(f"{out.name}: {out.stat().st_size} bytes")


main(sys.argv[1], sys.argv[2:])
