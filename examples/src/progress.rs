//! Progress bars on stderr, where stderr is a terminal.

use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::{Arc, Mutex, PoisonError};
use tamarack::{Phase, Progress};

/// One bar at a time, for what loading does just now. Clones show the same bar.
#[derive(Clone, Default)]
pub struct Bars(Arc<Mutex<Option<(Phase, ProgressBar)>>>);

impl Bars {
    /// Shows how far loading is.
    pub fn show(&self, progress: &Progress) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|(phase, _)| *phase != progress.phase) {
            *shown = None;
        }
        let (_, bar) = shown.get_or_insert_with(|| (progress.phase, bar(progress.phase)));
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(output::name(&progress.file).into_owned());
        if progress.done == progress.total {
            bar.finish_and_clear();
        }
    }

    /// Takes away what is shown.
    pub fn clear(&self) {
        if let Some((_, bar)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

/// Draws on stderr, and nothing at all where that is no terminal.
fn bar(phase: Phase) -> ProgressBar {
    let template = match phase {
        Phase::Download => "Downloading {msg} [{bar:30}] {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
        Phase::Load => "Loading {msg} [{bar:30}] {bytes} of {total_bytes}",
        Phase::Compile => "Compiling kernels for {msg} [{bar:30}]",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style.progress_chars("=> "))
}
