//! InternLM2, arXiv:2403.17297: Llama whose projections to heads are one matrix, group by group.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct InternLm2Config {
        hidden_size: usize = 4096,
        intermediate_size: usize = 11_008,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 103_168,
        tie_word_embeddings: bool = false,
    }
}

struct Layer<'a> {
    c: &'a InternLm2Config,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let h = x + self.attention(&w.at("attention"), norm("attention_norm", x));
        h + self.mlp(&w.at("feed_forward"), norm("ffn_norm", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim, groups) = (self.c.hidden_size, self.c.head_dim, self.c.num_key_value_heads.max(1));
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, groups * head_dim);
        // The queries of a group of heads, then the key and the value that they share.
        let fused = w.linear("wqkv", [q + 2 * kv_size, d]).forward(x).split_heads((q + 2 * kv_size) / groups);
        let queries_of_one = q / groups;
        let queries = fused.slice(2, 0, queries_of_one).merge_heads().split_heads(head_dim).rope(&self.rope);
        let keys = fused.slice(2, queries_of_one, head_dim).rope(&self.rope);
        let cache = kv(keys, fused.slice(2, queries_of_one + head_dim, head_dim), CacheSpec::default());
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim));
        w.linear("wo", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("w1", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("w2", [d, ff]).forward(gate * w.linear("w3", [ff, d]).forward(x))
    }
}

struct InternLm2;

impl Architecture for InternLm2 {
    fn declaration(&self) -> Declaration {
        Declaration::llm("internlm2", &["internlm2"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = InternLm2Config::parse(config)?;
        let layer = Layer { c: &c, rope: config.max_positions(2048).rope(c.head_dim, 10_000.0)? };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.tok_embeddings", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rope.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("output", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(InternLm2);
