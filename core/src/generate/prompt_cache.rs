//! Keys and values that outlive a generation.

use crate::{
    Error, Result,
    engine::Engine,
    exec::{ImageHash, Media, Sequence},
};
use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

/// What a generation has computed, kept for the next one: as far as that one begins with the same tokens, they
/// are not computed again.
///
/// [`crate::ModelContainer::prompt_cache`] makes one; clones are handles of the same one. It holds a part of the model's cache as
/// long as nobody else needs that, and is never wrong: what was given up is computed anew.
///
/// ```no_run
/// # async fn example(container: tamarack::ModelContainer) -> tamarack::Result<()> {
/// use tamarack::GenerateParameters;
///
/// let cache = container.prompt_cache();
/// for question in ["Why?", "Why not?"] {
///     let prompt = format!("A long text that all questions are about. {question}");
///     let input = container.prepare(tamarack::UserInput::raw(prompt)).await?;
///     let (answer, info) = container.generate_from(input, GenerateParameters::default(), &cache).await?.text().await?;
///     println!("{answer} ({} tokens were there already)", info.cached_prompt_tokens);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PromptCache {
    held: Arc<Mutex<Held>>,
    pub(crate) engine: Weak<Engine>,
}

#[derive(Default)]
struct Held {
    tokens: Vec<u32>,
    /// Where among them images are, and which.
    images: Vec<(Range<usize>, ImageHash)>,
    /// The adapter that they were computed with.
    adapter: Option<String>,
    /// `None` while a generation uses it, and when its pages were given up.
    sequence: Option<Sequence>,
    is_in_use: bool,
}

impl PromptCache {
    pub(crate) fn new(engine: Weak<Engine>) -> PromptCache {
        PromptCache { held: Arc::default(), engine }
    }

    /// The tokens whose keys and values it stands for.
    pub fn tokens(&self) -> Vec<u32> {
        self.held().tokens.clone()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held().tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the last `count` tokens, or all if there are fewer. Returns how many it forgot.
    pub fn trim(&self, count: usize) -> usize {
        let mut held = self.held();
        let left = held.tokens.len().saturating_sub(count);
        let forgotten = held.tokens.len() - left;
        held.tokens.truncate(left);
        forgotten
    }

    /// How many tokens at the beginning of `tokens`, a text without images, it holds.
    pub fn common_prefix(&self, tokens: &[u32]) -> usize {
        self.held().common(tokens, None)
    }

    /// Begins a generation: gives what there is of a beginning of `tokens`, and how many of its own tokens are one.
    /// Nothing while another generation uses it.
    pub(crate) fn check_out(
        &self,
        tokens: &[u32],
        media: Option<&Media>,
        adapter: Option<&str>,
    ) -> Option<(Option<Sequence>, usize)> {
        let mut held = self.held();
        if held.is_in_use {
            return None;
        }
        held.is_in_use = true;
        let known = if held.adapter.as_deref() == adapter { held.common(tokens, media) } else { 0 };
        Some((held.sequence.take(), known))
    }

    /// Ends a generation. What it has computed is that of `tokens`.
    pub(crate) fn check_in(
        &self,
        tokens: &[u32],
        media: Option<&Media>,
        adapter: Option<&str>,
        sequence: Option<Sequence>,
    ) {
        let images = media.map(|m| m.keys(tokens)).unwrap_or_default();
        let adapter = adapter.map(str::to_owned);
        *self.held() = Held { tokens: tokens.to_vec(), images, adapter, sequence, is_in_use: false };
    }

    /// Looks at its sequence, and at the tokens that it stands for, while no generation runs.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&[u32], Option<&Sequence>) -> R) -> R {
        let held = self.held();
        // What comes from the first image on means nothing without it.
        let text = held.images.first().map_or(usize::MAX, |(range, _)| range.start).min(held.tokens.len());
        look(&held.tokens[..text], held.sequence.as_ref())
    }

    pub(crate) fn take_sequence(&self) -> Option<Sequence> {
        self.held().sequence.take()
    }

    pub(crate) fn is_same(&self, other: &PromptCache) -> bool {
        Arc::ptr_eq(&self.held, &other.held)
    }

    /// Whether this is the last handle.
    pub(crate) fn is_forgotten(&self) -> bool {
        Arc::strong_count(&self.held) == 1
    }

    /// Refuses the caches of another model.
    pub(crate) fn check(&self, engine: &Arc<Engine>) -> Result<()> {
        if std::ptr::eq(self.engine.as_ptr(), Arc::as_ptr(engine)) {
            return Ok(());
        }
        Err(Error::Request("the prompt cache belongs to another model: make one with this container".to_owned()))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Held {
    /// How many tokens are those of a prompt with its images. No image is cut: its tokens may see each other.
    fn common(&self, tokens: &[u32], media: Option<&Media>) -> usize {
        let mut common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let theirs = media.map(|m| m.keys(tokens)).unwrap_or_default();
        let is_shared = |image| self.images.contains(image) && theirs.contains(image);
        let all = || self.images.iter().chain(&theirs);
        while let Some((range, _)) =
            all().find(|image| image.0.start < common && (image.0.end > common || !is_shared(image)))
        {
            common = range.start;
        }
        common
    }
}

impl fmt::Debug for PromptCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PromptCache").field("tokens", &self.len()).finish_non_exhaustive()
    }
}
