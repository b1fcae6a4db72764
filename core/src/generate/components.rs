//! What a program can put in place of the parts that choose tokens.

use std::fmt;

/// Changes logits before a token is chosen: a penalty, a bias, a grammar.
///
/// ```
/// use tamarack::generate::LogitProcessor;
///
/// /// Never says the same token twice in a row.
/// #[derive(Default)]
/// struct NoStutter(Option<u32>);
///
/// impl LogitProcessor for NoStutter {
///     fn process(&mut self, logits: &mut [f32]) {
///         if let Some(last) = self.0.and_then(|token| logits.get_mut(token as usize)) {
///             *last = f32::NEG_INFINITY;
///         }
///     }
///
///     fn did_sample(&mut self, token: u32) {
///         self.0 = Some(token);
///     }
/// }
/// ```
pub trait LogitProcessor: Send {
    /// Sees the prompt, once, before everything else.
    fn prompt(&mut self, _tokens: &[u32]) {}

    /// Changes one row of logits. A token whose logit is minus infinity or no number is not chosen.
    fn process(&mut self, logits: &mut [f32]);

    /// Sees the token that was chosen.
    fn did_sample(&mut self, _token: u32) {}
}

/// Chooses a token.
pub trait LogitSampler: Send {
    /// The next token; `None` if there is none to choose, which fails the generation.
    fn sample(&mut self, logits: &[f32]) -> Option<u32>;
}

/// Parts of one generation that the program brings along. Each one makes the host look at every row of logits, which costs
/// a round trip to the device per token.
#[derive(Default)]
pub struct GenerationComponents {
    /// Run in this order, after the penalties that the parameters ask for.
    pub processors: Vec<Box<dyn LogitProcessor>>,
    /// Chooses in place of temperature, top-p, top-k and min-p.
    pub sampler: Option<Box<dyn LogitSampler>>,
}

impl GenerationComponents {
    /// One more processor.
    pub fn processor(mut self, processor: impl LogitProcessor + 'static) -> GenerationComponents {
        self.processors.push(Box::new(processor));
        self
    }

    /// A sampler.
    pub fn sampler(mut self, sampler: impl LogitSampler + 'static) -> GenerationComponents {
        self.sampler = Some(Box::new(sampler));
        self
    }
}

impl fmt::Debug for GenerationComponents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (processors, sampler) = (self.processors.len(), self.sampler.is_some());
        f.debug_struct("GenerationComponents").field("processors", &processors).field("sampler", &sampler).finish()
    }
}
