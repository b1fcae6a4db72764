//! Compiled kernels, kept on disk from one process to the next.

use super::Gpu;
use std::{fs, path::PathBuf};

/// Bytes beyond which nothing is added: models come and go, and their kernels stay.
const MOST: usize = 128 << 20;

/// The driver's own form of compiled kernels, for one adapter.
pub(super) struct Cache {
    pub cache: wgpu::PipelineCache,
    file: PathBuf,
    /// Bytes that were on disk.
    known: usize,
}

impl Cache {
    /// What earlier processes left. `None` where the device cannot keep pipelines, or there is no place
    /// for them.
    pub fn open(device: &wgpu::Device, adapter: &wgpu::AdapterInfo) -> Option<Cache> {
        let name = wgpu::util::pipeline_cache_key(adapter)?;
        let folder = directories::ProjectDirs::from("", "", "tamarack")?.cache_dir().join("pipelines");
        Cache::at(device, folder.join(name))
    }

    fn at(device: &wgpu::Device, file: PathBuf) -> Option<Cache> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let data = fs::read(&file).ok();
        let cache = create(device, data.as_deref());
        Some(Cache { cache, file, known: data.map_or(0, |d| d.len()) })
    }

    /// Writes what has been compiled since. Without it the next process compiles again: no error.
    pub fn keep(&mut self) {
        let Some(data) = self.cache.get_data().filter(|data| data.len() > self.known && data.len() < MOST) else {
            return;
        };
        self.known = data.len();
        if let Err(e) = super::tune::write_whole(&self.file, &data) {
            tracing::warn!("{}: compiled kernels are not kept: {e}", self.file.display());
        }
    }
}

// SAFETY of the call: the data are what `get_data` gave, in a folder of the user's own. wgpu checks
// its header, which names adapter and driver, and takes an empty cache if anything differs.
#[allow(unsafe_code)]
fn create(device: &wgpu::Device, data: Option<&[u8]>) -> wgpu::PipelineCache {
    unsafe {
        device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor { label: Some("tamarack"), data, fallback: true })
    }
}

impl Gpu {
    /// Keeps on disk what has been compiled.
    pub(super) fn keep_pipelines(&self) {
        if let Some(cache) = &self.pipelines {
            cache.lock().unwrap_or_else(|e| e.into_inner()).keep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::adapters;
    use std::sync::Mutex;
    use tamarack_kernels::bandwidth;

    #[test]
    fn kernels_outlive_the_process_and_damage_is_forgiven() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep").join("cache");
        for (damage, kept) in [(None, false), (None, true), (Some(&b"no pipelines"[..]), true)] {
            if let Some(bytes) = damage {
                fs::write(&file, bytes).unwrap();
            }
            let mut gpu = Gpu::open(&adapters()[0]).unwrap();
            let Some(cache) = Cache::at(&gpu.device, file.clone()) else { return };
            assert_eq!(cache.known > 0, kept);
            gpu.pipelines = Some(std::sync::Arc::new(Mutex::new(cache)));
            gpu.compile(&bandwidth::read(1 << 20, &gpu.caps)).unwrap();
            gpu.keep_pipelines();
            assert!(fs::metadata(&file).unwrap().len() > 32);
        }
    }
}
