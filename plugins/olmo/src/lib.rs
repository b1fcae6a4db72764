//! OLMo by Ai2, arXiv:2402.00838: Llama with layer norms that have no weights, and projections that may be clipped.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct OlmoConfig {
        hidden_size: usize = 4096,
        intermediate_size: usize = 11_008,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        clip_qkv: Option<f32> = None,
        vocab_size: usize = 50_304,
        tie_word_embeddings: bool = false,
    }
}

const NORM: LayerNorm = LayerNorm { weight: None, bias: None, eps: 1e-5 };

struct Layer<'a> {
    c: &'a OlmoConfig,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let h = x + self.attention(&w.at("self_attn"), NORM.forward(x));
        h + self.mlp(&w.at("mlp"), NORM.forward(h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let clip = |x: Tensor| self.c.clip_qkv.map_or(x, |most| x.clamp(Some(-most), Some(most)));
        let heads = |name, size| clip(w.linear(name, [size, d]).forward(x)).split_heads(head_dim);
        let queries = heads("q_proj", q).rope(&self.rope);
        let cache = kv(heads("k_proj", kv_size).rope(&self.rope), heads("v_proj", kv_size), CacheSpec::default());
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Olmo;

impl Architecture for Olmo {
    fn declaration(&self) -> Declaration {
        Declaration::llm("olmo", &["olmo"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = OlmoConfig::parse(config)?;
        let layer = Layer { c: &c, rope: config.max_positions(2048).rope(c.head_dim, 10_000.0)? };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(NORM.forward(step.outputs(x))))
    }
}

register!(Olmo);
