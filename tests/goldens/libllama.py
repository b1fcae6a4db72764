"""llama.cpp's shared library through ctypes, for the scripts beside this one.

    npm install @node-llama-cpp/linux-x64@3.22.1     # release v0.5.0 of llama.cpp
    export LIBLLAMA=node_modules/@node-llama-cpp/linux-x64/bins/linux-x64
    pip install gguf==0.19.0 tokenizers==0.23.3
"""

import ctypes
import os
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int32, c_void_p

FOLDER = os.path.abspath(os.environ["LIBLLAMA"])
for name in ("libggml-base.so", "libggml.v0.5.0.so", "libllama.v0.5.0.so"):
    lib = ctypes.CDLL(os.path.join(FOLDER, name), mode=ctypes.RTLD_GLOBAL)
ggml = ctypes.CDLL(os.path.join(FOLDER, "libggml.v0.5.0.so"))


class ModelParams(ctypes.Structure):
    # Only `vocab_only`, which follows 72 bytes of pointers and numbers, is set here.
    _fields_ = [("before", ctypes.c_ubyte * 72), ("vocab_only", c_bool), ("rest", ctypes.c_ubyte * 7)]


class ContextParams(ctypes.Structure):
    # Larger than the real structure, which is passed on as it is.
    _fields_ = [("all", ctypes.c_ubyte * 512)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", c_int32), ("token", c_void_p), ("embd", c_void_p), ("pos", c_void_p),
                ("n_seq_id", c_void_p), ("seq_id", c_void_p), ("logits", c_void_p)]


def function(name, result, *arguments):
    f = getattr(lib, name)
    f.restype, f.argtypes = result, arguments
    return f


model_params = function("llama_model_default_params", ModelParams)
load = function("llama_model_load_from_file", c_void_p, c_char_p, ModelParams)
free = function("llama_model_free", None, c_void_p)
vocab_of = function("llama_model_get_vocab", c_void_p, c_void_p)
n_tokens = function("llama_vocab_n_tokens", c_int32, c_void_p)
is_eog = function("llama_vocab_is_eog", c_bool, c_void_p, c_int32)
is_control = function("llama_vocab_is_control", c_bool, c_void_p, c_int32)
adds_bos = function("llama_vocab_get_add_bos", c_bool, c_void_p)
tokenize_ = function("llama_tokenize", c_int32, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool)
context_params = function("llama_context_default_params", ContextParams)
context = function("llama_init_from_model", c_void_p, c_void_p, ContextParams)
free_context = function("llama_free", None, c_void_p)
one = function("llama_batch_get_one", Batch, POINTER(c_int32), c_int32)
decode = function("llama_decode", c_int32, c_void_p, Batch)
logits_ith = function("llama_get_logits_ith", POINTER(c_float), c_void_p, c_int32)

LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)
quiet = LOG(lambda level, text, data: None)
lib.llama_log_set(quiet, None)
ggml.ggml_backend_load_all_from_path(FOLDER.encode())


class Vocabulary:
    """The vocabulary of a GGUF file; `None` in place of one that llama.cpp refuses."""

    def __new__(cls, path):
        params = model_params()
        params.vocab_only = True
        model = load(str(path).encode(), params)
        if not model:
            return None
        self = super().__new__(cls)
        self.model, self.vocab = model, vocab_of(model)
        return self

    def tokenize(self, text, special=True):
        data, room = text.encode(), (c_int32 * (4 * len(text.encode()) + 16))()
        count = tokenize_(self.vocab, data, len(data), room, len(room), False, special)
        assert count >= 0
        return list(room[:count])

    def ids(self, which):
        return [i for i in range(n_tokens(self.vocab)) if which(self.vocab, i)]

    def __del__(self):
        free(self.model)


def logits(path, tokens):
    """The logits after each of `tokens`, as rows of floats."""
    model = load(str(path).encode(), model_params())
    assert model, path
    ctx, rows = context(model, context_params()), []
    width = n_tokens(vocab_of(model))
    for token in tokens:
        assert decode(ctx, one((c_int32 * 1)(token), 1)) == 0
        rows.append(logits_ith(ctx, -1)[:width])
    free_context(ctx)
    free(model)
    return rows
