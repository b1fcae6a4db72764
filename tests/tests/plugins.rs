use tamarack::plugins::Registry;
use tamarack_plugins as _;

#[test]
fn smoke() {
    let mut r = Registry::linked();
    println!("{:?}", r.find("foo"));
    let path = tamarack_tests::plugins::library("tamarack-llama");
    let t = std::time::Instant::now();
    println!("{:?}", r.load_file(&path));
    println!("{:?}", t.elapsed());
    println!("{}", serde_json::to_string_pretty(&r.list()).unwrap());
    let config = serde_json::json!({ "model_type": "llama", "num_attention_heads": 1u64 << 60, "head_dim": 64, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8});
    println!("{:?}", r.find("llama").unwrap().record("text", &config, Default::default()));
}
