//! What the system's allocator keeps of models that are gone.
//!
//! glibc keeps freed memory for the process: whole pages within its arenas until they are trimmed, and the end of each arena
//! unless that is longer than a threshold, which grows with the largest block that was ever freed, to 64 MiB (mallopt(3)). A
//! driver allocates there as well as we do. Weights and caches of the processor's executor have mappings of their own, on every
//! system.

/// Has the allocator give back what it keeps when this is dropped: as the last field of what held a model.
pub(crate) struct Trim;

impl Drop for Trim {
    fn drop(&mut self) {
        trim();
    }
}

/// Gives back all whole pages that are free.
#[allow(unsafe_code)]
pub(super) fn trim() {
    // SAFETY: malloc_trim(3) takes no pointer, and may be called at any time, by any thread.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Fixes the thresholds, for the whole process, so that an arena keeps no more than a mebibyte at its end; not where the
/// environment has set them.
#[allow(unsafe_code)]
pub(super) fn fix_thresholds() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// More than a step allocates at a time, so that decoding makes no mappings.
        const THRESHOLD: libc::c_int = 1 << 20;
        static ONCE: std::sync::Once = std::sync::Once::new();
        let settings = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"];
        if settings.iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        // SAFETY: mallopt(3) takes two numbers; both parameters may be set at any time.
        ONCE.call_once(|| unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
            libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD);
        });
    }
}
