use tamarack::{checkpoint::Checkpoint, exec::Executor, program::RULES, reference::Reference};
use tamarack_tests::model::*;
#[test]
fn first() {
    let cp = Checkpoint::open(std::path::Path::new("/tmp/models/smol.gguf")).unwrap();
    let p = program(&cp);
    let q = rewritten(p.clone(), RULES, &cp);
    for n in q.nodes.iter().enumerate().take(24) {
        println!("{} {:?} {:?} {:?}", n.0, n.1.op, n.1.inputs, n.1.shape);
    }
    println!("{} -> {}", p.nodes.len(), q.nodes.len());
    let g: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string("/work/shared/goldens/SmolLM2-135M-Instruct.json").unwrap())
            .unwrap();
    for prog in [q] {
        let mut r = Reference::load(prog, &cp, capacity(1200)).unwrap();
        println!("{}", r.device());
        for item in g["items"].as_array().unwrap().iter().take(3) {
            let ids: Vec<u32> = serde_json::from_value(item["prompt_ids"].clone()).unwrap();
            let want: Vec<u32> = serde_json::from_value(item["greedy_ids"].clone()).unwrap();
            let t = std::time::Instant::now();
            let got = Run::new(&mut r, 0).greedy(&ids, 512, 8);
            println!("{} prompt, {:?}\n{:?}\n{:?}", ids.len(), t.elapsed(), got, &want[..8]);
        }
    }
}
