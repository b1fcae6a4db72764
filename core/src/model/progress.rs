//! How far loading is.

use super::LoadOptions;
use futures::{Stream, StreamExt};
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A stream of [`Progress`] passes on so many reports, and whatever begins and ends a file: a reader who is late finds
/// a bounded number of them.
const INTERVAL: Duration = Duration::from_millis(20);

/// How far loading is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes that are done; of [`Phase::Compile`], kinds of steps.
    pub done: u64,
    /// All that there are.
    pub total: u64,
    /// The file at work, where there is one.
    pub file: String,
}

/// What loading does, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Files come from the hub.
    Download,
    /// Weights go to the device.
    Load,
    /// Kernels are compiled, for one kind of step after the other.
    Compile,
}

impl Progress {
    /// How much of the phase is done, from 0 to 1.
    pub fn fraction_completed(&self) -> f64 {
        if self.total == 0 { 1.0 } else { self.done as f64 / self.total as f64 }
    }
}

/// How far loading is, as it goes. Ends when loading has ended, well or not.
pub struct ProgressStream(UnboundedReceiver<Progress>);

impl ProgressStream {
    /// The next report.
    pub async fn next(&mut self) -> Option<Progress> {
        StreamExt::next(self).await
    }
}

impl Stream for ProgressStream {
    type Item = Progress;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Progress>> {
        self.0.poll_recv(context)
    }
}

impl fmt::Debug for ProgressStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressStream")
    }
}

impl LoadOptions {
    /// Is told how far loading is, from any thread.
    pub fn progress(mut self, report: impl Fn(Progress) + Send + Sync + 'static) -> LoadOptions {
        self.progress = Some(Arc::new(report));
        self
    }

    /// How far loading is, as a stream, in place of [`LoadOptions::progress`].
    ///
    /// ```no_run
    /// # async fn example(configuration: tamarack::ModelConfiguration) -> tamarack::Result<()> {
    /// let (options, mut progress) = tamarack::LoadOptions::default().progress_stream();
    /// let loading = tamarack::load_container(&configuration, options);
    /// let watching = async {
    ///     while let Some(p) = progress.next().await {
    ///         println!("{:?} {}: {:.0} %", p.phase, p.file, 100.0 * p.fraction_completed());
    ///     }
    /// };
    /// let (container, ()) = tokio::join!(loading, watching);
    /// # container.map(drop)
    /// # }
    /// ```
    pub fn progress_stream(self) -> (LoadOptions, ProgressStream) {
        let (send, receive) = unbounded_channel();
        let last: Mutex<Option<(Progress, Instant)>> = Mutex::default();
        let report = move |progress: Progress| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let is_next = last.as_ref().is_none_or(|(before, at)| {
                (before.phase, &before.file) != (progress.phase, &progress.file) || at.elapsed() >= INTERVAL
            });
            if is_next || progress.done == progress.total {
                *last = Some((progress.clone(), Instant::now()));
                // Nobody has to read it.
                let _ = send.send(progress);
            }
        };
        (self.progress(report), ProgressStream(receive))
    }

    pub(crate) fn report(&self, phase: Phase, file: &str, done: u64, total: u64) {
        if let Some(report) = &self.progress {
            report(Progress { phase, done, total, file: file.to_owned() });
        }
    }
}
