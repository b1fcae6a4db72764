//! The threads that compute: one pool for all models of a process that ask for as many.

use crate::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

static POOLS: Mutex<Option<HashMap<usize, Arc<ThreadPool>>>> = Mutex::new(None);

/// As many as there are physical cores that this process may use: two on one core would share what products keep busy.
pub fn default_threads() -> usize {
    let usable = std::thread::available_parallelism().map_or(1, |n| n.get());
    usable.min(num_cpus::get_physical()).max(1)
}

/// The pool of so many threads. Threads without work sleep.
pub(super) fn pool(threads: Option<usize>) -> Result<Arc<ThreadPool>> {
    let threads = threads.unwrap_or_else(default_threads).max(1);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let pools = pools.get_or_insert_default();
    if let Some(pool) = pools.get(&threads) {
        return Ok(pool.clone());
    }
    let builder = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("tamarack cpu {i}"));
    let pool = builder.build().map_err(|e| Error::Device(format!("{threads} threads: {e}")))?;
    let pool = Arc::new(pool);
    pools.insert(threads, pool.clone());
    Ok(pool)
}

/// Bytes a second that so many threads read from memory at best: of a buffer that no cache holds, the best of five.
///
/// # Errors
/// No threads can be had.
pub fn read_bandwidth(threads: Option<usize>) -> Result<f64> {
    use rayon::prelude::*;
    let pool = pool(threads)?;
    let words: Vec<u64> = pool.install(|| (0..(256u64 << 20) / 8).into_par_iter().collect());
    let read = || {
        let start = std::time::Instant::now();
        let sum = pool.install(|| {
            words.par_chunks(1 << 16).map(|c| c.iter().fold(0u64, |a, w| a ^ w)).reduce(|| 0, |a, b| a ^ b)
        });
        std::hint::black_box(sum);
        size_of_val(&words[..]) as f64 / start.elapsed().as_secs_f64()
    };
    Ok((0..5).map(|_| read()).fold(0.0, f64::max))
}
