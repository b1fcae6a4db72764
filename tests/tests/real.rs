//! Real models: what they write, and how well they predict a text, as in `transformers`.

use std::path::Path;
use tamarack::{
    Device, LlmModelFactory, LoadOptions, ModelConfiguration, ModelContainer,
    checkpoint::Checkpoint,
    exec::{Capacity, Executor},
    gpu::{Gpu, WgpuExecutor, adapters},
    plugins::Registry,
    program::RULES,
    reference::Reference,
};
use tamarack_tests::{
    cpu,
    model::{Run, program, rewritten},
    models::{self, Predicted, certain},
};

/// Between logits that are closer than this, either token may win.
const CLOSE: f32 = 0.05;

/// The model on the oracle and on every adapter.
fn executors(path: &Path) -> Vec<(String, Box<dyn Executor>)> {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|e| panic!("{e}"));
    let short = rewritten(program(&checkpoint), RULES, &checkpoint);
    let capacity = Capacity { rows: 256, outputs: 32, pages: 66, slots: 1 };
    let reference = Reference::load(short.clone(), &checkpoint, capacity).unwrap_or_else(|e| panic!("{e}"));
    let mut all: Vec<(String, Box<dyn Executor>)> = vec![(reference.device(), Box::new(reference))];
    all.extend(
        cpu::executors(&short, &checkpoint, capacity).take(1).map(|(name, e)| (name, Box::new(e) as Box<dyn Executor>)),
    );
    for adapter in adapters() {
        let gpu = Gpu::open(&adapter).unwrap_or_else(|e| panic!("{e}"));
        let executor = WgpuExecutor::load(gpu, short.clone(), &checkpoint, capacity).unwrap_or_else(|e| panic!("{e}"));
        all.push((executor.device(), Box::new(executor)));
    }
    all
}

/// exp(mean loss) over a text.
fn perplexity(executor: &mut dyn Executor, text: &[u32]) -> f64 {
    let logits = Run::new(executor, text.len()).feed(text, 32, text.len());
    let loss = |(row, next): (&Vec<f32>, &u32)| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(v - largest).exp()).sum();
        sum.ln() - f64::from(row[*next as usize] - largest)
    };
    let losses: Vec<f64> = logits.iter().zip(&text[1..]).map(loss).collect();
    (losses.iter().sum::<f64>() / losses.len() as f64).exp()
}

/// Within half a percent of `transformers`' on the same weights.
fn check_perplexity(path: &Path, text: &Predicted) {
    let nll: f64 = text.nll.iter().map(|x| f64::from(*x)).sum();
    let want = (nll / text.nll.len() as f64).exp();
    for (name, mut executor) in executors(path) {
        let got = perplexity(executor.as_mut(), &text.ids);
        println!("{}: perplexity {got:.4} on {name}, {want:.4} in transformers", path.display());
        assert!((got / want - 1.0).abs() < 0.005, "{}: {got} on {name}, want {want}", path.display());
    }
}

#[test]
#[ignore = "takes minutes"]
fn smollm2_predicts_a_text_as_in_transformers() {
    check_perplexity(&models::smollm2(), &models::smollm2_text());
}

#[test]
#[ignore = "takes minutes, and a model of 253 MB: tests/fetch-models gemma"]
fn gemma_predicts_a_text_as_in_transformers() {
    check_perplexity(&models::gemma(), &models::gemma_golden().1);
}

#[test]
#[ignore = "takes minutes, and a model of 253 MB: tests/fetch-models gemma"]
fn gemma_continues_every_prompt_as_in_transformers() {
    let (items, _) = models::gemma_golden();
    for (name, mut executor) in executors(&models::gemma()) {
        for item in &items {
            let n = certain(&item.margins, CLOSE);
            let greedy = Run::new(executor.as_mut(), item.prompt_ids.len()).greedy(&item.prompt_ids, 256, n);
            assert_eq!(greedy, item.greedy_ids[..n], "{:?} on {name}", item.prompt);
        }
    }
}

async fn container(path: &Path) -> ModelContainer {
    let _ = tamarack_plugins::LINKED;
    let configuration = ModelConfiguration::parse(&path.to_string_lossy());
    let options = LoadOptions::default().device(Device::Reference).context(64);
    let container = LlmModelFactory::new(Registry::linked()).load_container(&configuration, options).await;
    container.unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test]
#[ignore = "takes a model of 253 MB: tests/fetch-models gemma"]
async fn gemma_reads_and_writes_as_in_transformers() {
    let container = container(&models::gemma()).await;
    for item in models::gemma_golden().0 {
        assert_eq!(container.encode(&item.prompt).expect("tokens"), item.prompt_ids, "{:?}", item.prompt);
        assert_eq!(container.decode(&item.greedy_ids).expect("text"), item.text);
    }
}
