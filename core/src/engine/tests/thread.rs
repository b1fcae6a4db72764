//! Containers, from any thread.

use super::super::Engine;
use super::toy::{Log, Next, Toy, configuration, info, says, scrambled};
use crate::{
    Error, GenerateParameters, Generation, LmInput, ModelConfiguration, ModelContainer, ModelContext, StopReason,
    UserInput,
    exec::Executor,
    model::{LlmUserInputProcessor, Model, Shared},
    text::{Tokenizer, fixtures},
};
use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

pub async fn container(pages: usize, next: Next) -> (ModelContainer, Arc<Mutex<Log>>) {
    container_of(pages, next, fixtures::tokenizer(&fixtures::byte_level()), configuration()).await
}

pub async fn container_of(
    pages: usize,
    next: Next,
    tokenizer: Tokenizer,
    configuration: ModelConfiguration,
) -> (ModelContainer, Arc<Mutex<Log>>) {
    let toy = Toy::new(16, pages, next);
    let log = toy.log.clone();
    let load = move || {
        let info = info(toy.capacity());
        let (tokenizer, configuration) = (Arc::new(Ok(tokenizer)), Arc::new(configuration));
        let model = Model::new(Box::new(toy));
        let processor = Arc::new(LlmUserInputProcessor);
        let shared = Shared { configuration, tokenizer, processor, info };
        Ok((shared.context(model), shared))
    };
    let (engine, shared) = Engine::start(load).await.unwrap();
    (ModelContainer::new(engine, shared), log)
}

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), temperature: 0.0, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_share_a_container() {
    let (container, _) = container(64, scrambled()).await;
    let ask = |i: u32| {
        let container = container.clone();
        async move {
            let input = LmInput::from(vec![2 + i % 3; 5]);
            container.generate(input, greedy(30)).await?.text().await
        }
    };
    let tasks: Vec<_> = (0..12).map(|i| tokio::spawn(ask(i))).collect();
    let mut texts = Vec::new();
    for task in tasks {
        let (text, info) = task.await.unwrap().unwrap();
        assert_eq!((info.generation_tokens, info.stop_reason), (30, StopReason::Length));
        texts.push(text);
    }
    assert!((3..12).all(|i| texts[i] == texts[i % 3]));
    assert!(texts[0] != texts[1] && texts[1] != texts[2]);
}

/// Every third is cancelled after a few events, every ninth by being dropped.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_at_once_some_of_them_cancelled() {
    let (container, _) = container(96, scrambled()).await;
    let prompt = |i: u32| LmInput::from(vec![2 + i % 5; 3 + i as usize % 7]);
    let mut alone = Vec::new();
    for i in 0..35 {
        alone.push(container.generate(prompt(i), greedy(40)).await.unwrap().text().await.unwrap().0);
    }
    let ask = |i: u32| {
        let container = container.clone();
        async move {
            let mut stream = container.generate(prompt(i), greedy(40)).await.unwrap();
            let (mut text, mut events) = (String::new(), 0);
            while let Some(event) = stream.next().await {
                match event.unwrap() {
                    Generation::Chunk(chunk) => text += &chunk,
                    Generation::Info(info) => return (i, text, Some(info.stop_reason)),
                    _ => {}
                }
                events += 1;
                if i.is_multiple_of(9) && events == 5 {
                    return (i, text, None);
                }
                if i.is_multiple_of(3) && events == 5 {
                    stream.cancel();
                }
            }
            unreachable!("a stream ends on its info")
        }
    };
    let tasks: Vec<_> = (0..64).map(|i| tokio::spawn(ask(i))).collect();
    let mut whole = 0;
    for task in tasks {
        let (i, text, reason) = task.await.unwrap();
        let expected = &alone[i as usize % 35];
        match reason {
            Some(StopReason::Length) => {
                assert_eq!(&text, expected, "request {i}");
                whole += 1;
            }
            Some(StopReason::Cancelled) | None => {
                assert!(expected.starts_with(text.trim_end_matches('\u{fffd}')) && i.is_multiple_of(3))
            }
            Some(StopReason::Stop) => panic!("request {i} ended by itself"),
        }
    }
    assert!(whole >= 42, "{whole} were not cancelled");
    let all = container.perform(|context| (context.model.pool.free(), context.model.capacity().pages)).await.unwrap();
    assert_eq!(all.0, all.1, "all pages came back");
}

#[tokio::test]
async fn perform_has_the_model_to_itself() {
    let (container, _) = container(64, scrambled()).await;
    let input = LmInput::from(vec![4; 5]);
    let (alone, _) = container.generate(input.clone(), greedy(200)).await.unwrap().text().await.unwrap();
    let mut stream = container.generate(input, greedy(200)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    // In the middle of the generation, through the same slots.
    let forward = |context: &mut ModelContext| (context.model.forward(&[7; 20], 6), context.model.vocabulary());
    let (logits, vocabulary) = container.perform(forward).await.unwrap();
    let logits = logits.unwrap();
    assert_eq!(logits.len(), 20 * vocabulary);
    for (i, row) in logits.chunks(vocabulary).enumerate() {
        let best = (0..vocabulary).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32;
        assert_eq!(best, scrambled()(&vec![7; i + 1], 0, 0), "after token {i}");
    }
    let too_long = container.perform(|context| context.model.forward(&[7; 2000], 6)).await.unwrap();
    assert!(matches!(too_long, Err(Error::Memory(_))));
    let e = container.perform(|_| panic!("not today")).await.unwrap_err();
    assert_eq!(e.to_string(), "perform: the closure panicked");
    let (text, _) = stream.text().await.unwrap();
    assert_eq!(text, alone[alone.len() - text.len()..]);
    assert!(alone.len() - text.len() < 10);
}

#[tokio::test]
async fn the_last_handle_frees_the_model() {
    // Slow enough that an answer takes seconds: it is still being made when its stream goes.
    let slow: Next = Arc::new(|tokens, seed, counter| {
        thread::sleep(Duration::from_millis(10));
        scrambled()(tokens, seed, counter)
    });
    let (container, log) = container(64, slow).await;
    let clone = container.clone();
    let stream = container.generate(LmInput::from(vec![4; 5]), greedy(900)).await.unwrap();
    drop(container);
    drop(clone);
    assert!(!log.lock().unwrap().dropped, "a stream keeps the model");
    drop(stream);
    assert!(log.lock().unwrap().dropped);
    assert!(log.lock().unwrap().steps.len() < 900);
}

#[tokio::test]
async fn a_closure_may_hold_the_last_handle() {
    let (container, log) = container(64, scrambled()).await;
    let (send, receive) = mpsc::channel::<()>();
    let clone = container.clone();
    let work = move |_: &mut ModelContext| {
        let _ = receive.recv_timeout(Duration::from_secs(60));
        drop(clone);
    };
    let task = tokio::spawn(async move { container.perform(work).await });
    tokio::task::yield_now().await;
    task.abort();
    let _ = task.await;
    drop(send);
    for _ in 0..1000 {
        if log.lock().unwrap().dropped {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the engine's thread goes on");
}

#[tokio::test]
async fn texts_become_tokens_and_tokens_text() {
    let (container, log) = container(64, says("hey")).await;
    let prompt = container.prepare(UserInput::raw("")).await;
    assert!(
        prompt.unwrap().tokens.is_empty()
            && container.encode("hé").unwrap() == container.prepare(UserInput::raw("hé")).await.unwrap().tokens
    );
    assert_eq!(container.decode(&container.encode("hé").unwrap()).unwrap(), "hé");
    let plain = container.prepare("hé".into()).await.unwrap();
    assert_eq!(plain.tokens, container.encode("hé").unwrap(), "without a template a conversation is its text");
    let mut stream = container.generate(LmInput::from(vec![2]), greedy(99)).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event.unwrap());
    }
    assert!(matches!(events.last(), Some(Generation::Info(info)) if info.stop_reason == StopReason::Stop));
    assert!(stream.next().await.is_none());
    // An executor that fails fails the generation, not the container.
    log.lock().unwrap().fail_submit.extend(0..1000);
    let failed = container.generate(LmInput::from(vec![2]), greedy(99)).await.unwrap().text().await;
    assert!(matches!(failed, Err(Error::Device(_))));
    log.lock().unwrap().fail_submit.clear();
    assert_eq!(container.generate(LmInput::from(vec![2]), greedy(99)).await.unwrap().text().await.unwrap().0, "hey");
}

#[tokio::test]
async fn what_cannot_be_loaded_says_why() {
    let fails = Engine::start(|| Err(Error::Model("no weights".to_owned()))).await.map(|_| ()).unwrap_err();
    assert_eq!(fails.to_string(), "no weights");
    let panics = Engine::start(|| panic!("a driver's bug")).await.map(|_| ()).unwrap_err();
    assert_eq!(panics.to_string(), "loading panicked");
}
