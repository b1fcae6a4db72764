//! Host memory that a device copies from. It is used again and again: memory that is allocated for one copy costs more
//! than the copy does.

use super::Gpu;
use crate::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a piece, which one thread fills at once.
pub(super) const PIECE: usize = 256 << 10;

/// Pieces of host memory, and what is to be copied from them.
pub(super) struct Staging<'a> {
    pub gpu: &'a Gpu,
    /// Mapped, and not in use.
    free: Arc<Mutex<Vec<wgpu::Buffer>>>,
    filled: Mutex<Vec<Filled>>,
}

/// A piece, and where it goes.
struct Filled {
    piece: wgpu::Buffer,
    copies: Vec<Copy>,
}

/// Bytes `from..from + bytes` of a piece, to byte `at` of a buffer.
struct Copy {
    from: u64,
    to: wgpu::Buffer,
    at: u64,
    bytes: u64,
}

/// A piece that is being filled.
pub(super) struct Piece {
    buffer: wgpu::Buffer,
    view: wgpu::BufferViewMut,
    copies: Vec<Copy>,
}

impl Piece {
    /// Takes the next `bytes` of the piece, whole words, which are to be copied to byte `at` of a buffer. Returns where they
    /// begin.
    pub fn part(&mut self, to: &wgpu::Buffer, at: u64, bytes: usize) -> usize {
        let from = self.copies.last().map_or(0, |last| last.from + last.bytes);
        self.copies.push(Copy { from, to: to.clone(), at, bytes: bytes as u64 });
        from as usize
    }

    /// Stores words from byte `at` of the piece on.
    pub fn put(&mut self, at: usize, words: &[u32]) {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        self.view.slice(at..at + bytes.len()).copy_from_slice(bytes);
    }
}

impl<'a> Staging<'a> {
    pub fn new(gpu: &'a Gpu) -> Staging<'a> {
        Staging { gpu, free: Arc::default(), filled: Mutex::default() }
    }

    /// A piece of at least so many bytes.
    ///
    /// # Errors
    /// There is no memory for it, or the device is lost.
    pub fn piece(&self, bytes: usize) -> Result<Piece> {
        let free = if bytes > PIECE { None } else { lock(&self.free).pop() };
        let buffer = free.unwrap_or_else(|| {
            self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("staging"),
                size: bytes.max(PIECE).next_multiple_of(16) as u64,
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            })
        });
        match buffer.get_mapped_range_mut(..) {
            Ok(view) => Ok(Piece { buffer, view, copies: Vec::new() }),
            Err(e) => {
                self.gpu.take_errors()?;
                Err(Error::Device(format!("{}: no memory for {bytes} bytes to copy: {e}", self.gpu.info().name)))
            }
        }
    }

    /// Hands a piece over, for [`Staging::submit`].
    pub fn fill(&self, piece: Piece) {
        let Piece { buffer, view, copies } = piece;
        drop(view);
        buffer.unmap();
        lock(&self.filled).push(Filled { piece: buffer, copies });
    }

    /// Bytes of the pieces that wait for [`Staging::submit`], however full they are.
    pub fn waiting(&self) -> usize {
        lock(&self.filled).len() * PIECE
    }

    /// Has the device copy what was handed over. When it has, and is polled, the pieces are free again.
    pub fn submit(&self) -> wgpu::SubmissionIndex {
        let filled = std::mem::take(&mut *lock(&self.filled));
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        for Filled { piece, copies } in &filled {
            for copy in copies {
                encoder.copy_buffer_to_buffer(piece, copy.from, &copy.to, copy.at, copy.bytes);
            }
        }
        let submission = self.gpu.queue.submit([encoder.finish()]);
        for Filled { piece, .. } in filled.into_iter().filter(|f| f.piece.size() == PIECE as u64) {
            let (free, again) = (self.free.clone(), piece.clone());
            piece.map_async(wgpu::MapMode::Write, .., move |mapped| {
                if mapped.is_ok() {
                    lock(&free).push(again);
                }
            });
        }
        submission
    }
}

/// Nothing that is locked here can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
