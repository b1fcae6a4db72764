//! How much memory a device has left.

use super::Gpu;
use crate::Result;

/// Asked for at a time.
const PIECE: u64 = 256 << 20;

impl Gpu {
    /// Bytes that can still be had, up to `wanted`: tried, as no API that all backends have tells. What an adapter of
    /// [`super::adapters_within_budget`] is asked for stays within what the system grants this process.
    ///
    /// # Errors
    /// The device was lost.
    pub fn room(&self, wanted: u64) -> Result<u64> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while bytes < wanted {
            let size = PIECE.min(self.caps.binding_size).min(wanted - bytes).next_multiple_of(16);
            let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let piece = self.buffer("room", size);
            if pollster::block_on(scope.pop()).is_some() {
                break;
            }
            pieces.push(piece);
            bytes += size;
        }
        drop(pieces);
        self.poll(wgpu::PollType::wait_indefinitely())?;
        self.take_errors()?;
        Ok(bytes.min(wanted))
    }
}
