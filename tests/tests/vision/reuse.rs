//! The same image is computed once, and what follows the same images is not computed again.

use super::{image, load, on_runtime};
use tamarack::{ChatSession, Device, GenerateParameters, ModelContainer, UserInput};
use tamarack_tests::gpu::devices;

fn parameters() -> GenerateParameters {
    GenerateParameters { max_tokens: Some(3), temperature: 0.0, ignore_eos: true, ..GenerateParameters::default() }
}

async fn runs(container: &ModelContainer) -> usize {
    container.perform(|context| context.model.tower_runs()).await.unwrap()
}

#[test]
fn images_are_told_apart_by_what_they_show() {
    on_runtime(async {
        let container = load("qwen2_vl", Device::Reference).await;
        let cache = container.prompt_cache();
        let ask = async |name: &str, question: &str| {
            let input = container.prepare(UserInput::from(question).image(image(name))).await.unwrap();
            let stream = container.generate_from(input, parameters(), &cache).await.unwrap();
            stream.text().await.unwrap()
        };
        let (first, info) = ask("cat.png", "What is it?").await;
        assert_eq!((info.cached_prompt_tokens, runs(&container).await), (0, 1));
        let (again, info) = ask("cat.png", "What is it?").await;
        assert_eq!((&again, runs(&container).await), (&first, 1), "the same image: the tower does not run again");
        assert_eq!(info.cached_prompt_tokens, info.prompt_tokens - 1);
        let (_, info) = ask("cat.png", "Why?").await;
        assert!(info.cached_prompt_tokens > 20 && runs(&container).await == 1, "{info:?}");
        // The beginning of the turn is common, and the image is not, though their tokens are the same.
        let (other, info) = ask("cup.png", "What is it?").await;
        assert_eq!(runs(&container).await, 2);
        assert!(info.cached_prompt_tokens < 12, "{info:?}");
        let fresh = container.prepare(UserInput::from("What is it?").image(image("cup.png"))).await.unwrap();
        let (fresh, _) = container.generate(fresh, parameters()).await.unwrap().text().await.unwrap();
        assert_eq!(other, fresh);
    });
}

#[test]
fn a_conversation_keeps_its_images() {
    on_runtime(async {
        for device in devices() {
            let container = load("qwen2_vl", device).await;
            let mut session = ChatSession::new(container.clone()).parameters(parameters());
            session.add_image(image("cat.png"));
            session.respond("What is it?").await.unwrap();
            session.add_image(image("cup.png"));
            session.respond("And this?").await.unwrap();
            session.respond("Sure?").await.unwrap();
            assert_eq!((session.turns().len(), runs(&container).await), (6, 2));
            let e = session.save("nowhere").await.unwrap_err().to_string();
            assert!(e.contains("with images or videos cannot be saved"), "{e}");
        }
    });
}
