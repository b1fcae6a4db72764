//! Weights in device memory.

use super::Gpu;
use super::quantize::Quantizer;
use super::staging::Staging;
use super::upload::{To, upload_rows};
use crate::{
    Error, Result,
    checkpoint::unpack_scale,
    program::{Op, Program},
    weights::Matrix,
};
use half::f16;
use std::ops::Range;
use tamarack_api::WeightId;
use tamarack_kernels::{Format, Scales};

/// Bytes that are packed and handed over at a time: host memory stays far below the model's size, and cores seldom wait for
/// the last of them.
const CHUNK: usize = 64 << 20;
/// Bytes handed over before the device copies them, while as many more are packed.
const IN_FLIGHT: usize = 32 << 20;

/// How a matrix lies on a device, without its values.
pub(super) struct Layout {
    pub cols: u32,
    /// The format of each segment, and its outputs.
    pub segments: Vec<(Format, u32)>,
    /// Whether its weights may be rounded to f16 on their way into a product; before they are read, that they may.
    pub fits_halves: bool,
    /// Bytes on the device.
    pub bytes: u64,
}

/// What belongs together in a matrix.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    /// Matrices of as many rows, one below the other: those of experts.
    experts: usize,
    /// Whether row `i` and row `rows / 2 + i` of each (a gate and what it gates) are computed together.
    halves: bool,
    /// Rows that are computed together where they are adjacent.
    adjacent: usize,
}

impl Parts {
    /// As the operations want it that a weight belongs to.
    pub fn of(program: &Program, weight: WeightId) -> Parts {
        let mut parts = Parts { experts: 1, halves: false, adjacent: 1 };
        for node in &program.nodes {
            match &node.op {
                Op::MatMul(m) if m.weight == weight => parts.halves |= m.glu.is_some(),
                Op::ExpertUp(up) if up.weight == weight => {
                    parts.experts = program.weight_shape(weight)[0];
                    parts.halves |= !up.spec.interleaved;
                    parts.adjacent = if up.spec.interleaved { 2 } else { 1 };
                }
                Op::ExpertDown(down) if down.weight == weight => parts.experts = program.weight_shape(weight)[0],
                _ => {}
            }
        }
        parts
    }

    /// Rows that make one output.
    fn together(self) -> usize {
        self.adjacent * if self.halves { 2 } else { 1 }
    }

    /// Whether rows of the only matrix share segments.
    pub fn share(self) -> bool {
        self.experts == 1 && (self.halves || self.adjacent > 1)
    }
}

/// A matrix, cut where its format changes or a binding would grow too large.
pub(super) struct DeviceMatrix {
    pub segments: Vec<Segment>,
    pub cols: u32,
}

/// Adjacent rows in one format.
pub(super) struct Segment {
    pub format: Format,
    /// Whose: all rows of several experts, or some of one expert.
    pub experts: Range<u32>,
    /// First output of the matrix, or of each expert's: a row, or two that are computed together.
    pub first: u32,
    /// Outputs.
    pub rows: u32,
    pub quants: wgpu::Buffer,
    pub scales: Option<wgpu::Buffer>,
    /// Whether its weights may be rounded to f16 on their way into a product.
    fits_halves: bool,
}

impl DeviceMatrix {
    /// Whether all weights may be rounded to f16: none is too large, and those that are too small for all
    /// bits of an f16 are as nothing beside the largest.
    pub fn fits_halves(&self) -> bool {
        self.segments.iter().all(|s| s.fits_halves)
    }

    /// How it lies there.
    pub fn layout(&self) -> Layout {
        let segments = self.segments.iter().map(|s| (s.format, s.rows)).collect();
        let bytes = self.segments.iter().map(Segment::bytes).sum();
        Layout { cols: self.cols, segments, fits_halves: self.fits_halves(), bytes }
    }
}

impl Segment {
    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.quants.size() + self.scales.as_ref().map_or(0, wgpu::Buffer::size)
    }
}

/// Copies weights to a device.
pub(super) struct Uploader<'a> {
    gpu: &'a Gpu,
    staging: Staging<'a>,
    /// Bytes handed over since the last submission.
    in_flight: usize,
    copying: Option<wgpu::SubmissionIndex>,
    quantizer: Quantizer,
    /// Bytes copied.
    pub bytes: u64,
    /// Is told how many that are.
    report: &'a dyn Fn(u64),
}

impl<'a> Uploader<'a> {
    pub fn new(gpu: &'a Gpu, report: &'a dyn Fn(u64)) -> Uploader<'a> {
        let staging = Staging::new(gpu);
        Uploader { gpu, staging, in_flight: 0, copying: None, quantizer: Quantizer::default(), bytes: 0, report }
    }

    /// Copies a matrix. Where it has halves, those of an expert lie one after the other.
    pub fn matrix(&mut self, name: &str, matrix: &Matrix, parts: Parts) -> Result<DeviceMatrix> {
        let pieces = pieces(self.gpu, name, matrix, parts)?.into_iter();
        let segments = pieces.map(|(format, piece)| self.segment(name, matrix, format, parts, piece));
        Ok(DeviceMatrix { segments: segments.collect::<Result<_>>()?, cols: matrix.cols() as u32 })
    }

    /// Copies outputs `rows` of `experts`.
    fn segment(
        &mut self,
        name: &str,
        matrix: &Matrix,
        format: Format,
        parts: Parts,
        (experts, outputs): Piece,
    ) -> Result<Segment> {
        let cols = matrix.cols();
        let (words, scale_words) = (format.row_words(cols), format.row_scale_words(cols));
        let each = matrix.rows() / parts.experts;
        let own = outputs.start * parts.adjacent..outputs.end * parts.adjacent;
        let halves = if parts.halves { vec![0, each / 2] } else { vec![0] };
        let total = experts.len() * halves.len() * own.len();
        let quants = self.gpu.buffer(name, (total * words * 4) as u64);
        let scales = (scale_words > 0).then(|| self.gpu.buffer(name, (total * scale_words * 4) as u64));
        let dense = matrix.dense();
        let (mut done, mut largest) = (0, 0.0f32);
        for first in experts.clone().flat_map(|e| halves.iter().map(move |half| e * each + half)) {
            let rows = first + own.start..first + own.end;
            let step = (CHUNK / ((words + scale_words) * 4).max(1)).max(1);
            for start in rows.clone().step_by(step) {
                let part = start..(start + step).min(rows.end);
                if let (Some((quantize, dense)), Some(scales)) = (&dense, &scales) {
                    let count = part.len();
                    let run = self.quantizer.run(&self.staging, *quantize, dense, part, (&quants, scales), done)?;
                    self.in_flight += run.bytes;
                    largest = largest.max(run.largest);
                    self.bytes += (count * (words + scale_words) * 4) as u64;
                    done += count;
                    self.submit_if_full();
                    continue;
                }
                let count = part.len();
                let to = To { buffer: &quants, words, first: done };
                let scales = scales.as_ref().map(|buffer| To { buffer, words: scale_words, first: done });
                largest = largest.max(upload_rows(&self.staging, (matrix, format), part, to, scales)?);
                self.copied(count * (words + scale_words) * 4);
                done += count;
            }
        }
        // Below 2^-14 the step of an f16 is 2^-24.
        let fits_halves = format == Format::F16 || (0.001..60_000.0).contains(&largest);
        let [first, end] = [experts.start, experts.end].map(|e| e as u32);
        let rows = outputs.len() as u32;
        Ok(Segment { format, experts: first..end, first: outputs.start as u32, rows, quants, scales, fits_halves })
    }

    /// Copies a vector.
    pub fn vector(&mut self, name: &str, values: &[f32]) -> wgpu::Buffer {
        let buffer = self.gpu.buffer(name, values.len() as u64 * 4);
        self.gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        self.copied(values.len() * 4);
        buffer
    }

    /// Counts bytes that were handed over.
    fn copied(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        (self.report)(self.bytes);
        self.in_flight += bytes;
        self.submit_if_full();
    }

    /// Has the device copy what was handed over, and waits for what it was to copy before that: it copies while
    /// more is packed.
    fn submit_if_full(&mut self) {
        // Small parts of a matrix leave pieces of memory nearly empty.
        if self.in_flight.max(self.staging.waiting()) > IN_FLIGHT {
            let now = self.staging.submit();
            if let Some(before) = self.copying.replace(now) {
                let wait = wgpu::PollType::Wait { submission_index: Some(before), timeout: None };
                let _ = self.gpu.poll(wait);
            }
            self.in_flight = 0;
        }
    }

    /// Waits until the device has taken everything; staging memory is free again.
    pub fn flush(&mut self) {
        self.staging.submit();
        let _ = self.gpu.poll(wgpu::PollType::wait_indefinitely());
        (self.in_flight, self.copying) = (0, None);
    }
}

/// A bound of what weights of a format are, in rows of `cols`; those of f16 are not looked at.
pub(super) fn magnitude(format: Format, cols: usize, quants: &[u32], scales: &[u32]) -> f32 {
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0f32, |most, v| most.max(v.abs()));
    match format {
        Format::F16 => 0.0,
        Format::F32 => largest(&mut quants.iter().map(|w| f32::from_bits(*w))),
        Format::Bf16 => largest(&mut quants.iter().flat_map(|w| [w << 16, w & 0xffff_0000]).map(f32::from_bits)),
        Format::Affine { bits, scales: kind, .. } => {
            let top = ((1u32 << bits) - 1) as f32;
            let ends = |scale: f32, bias: f32| [bias, scale * top + bias];
            let half = |w: u32| f16::from_bits(w as u16).to_f32();
            match kind {
                Scales::Centered => {
                    let middle = (1u32 << (bits - 1)) as f32;
                    // Without their signs halves compare as their bits do, and none is infinite here.
                    let of = |w: u32| (w & 0x7fff).max(w >> 16 & 0x7fff);
                    middle * half(scales.iter().fold(0, |most, w| most.max(of(*w))))
                }
                Scales::F16 => largest(&mut scales.iter().flat_map(|w| ends(half(*w), half(w >> 16)))),
                Scales::F32 => {
                    let pair = |p: &[u32]| ends(f32::from_bits(p[0]), f32::from_bits(p[1]));
                    largest(&mut scales.chunks_exact(2).flat_map(pair))
                }
                Scales::E8m0 | Scales::E4m3 => f32::INFINITY,
            }
        }
        Format::Scaled { values, group, scales: kind } => {
            let codes = 0..=((1u32 << values.bits()) - 1) as u8;
            let groups = cols / group as usize;
            let rows = scales.chunks_exact(format.row_scale_words(cols).max(1));
            let mut all = rows.flat_map(|row| (0..groups).map(move |g| unpack_scale(kind, row, g)));
            largest(&mut codes.map(|code| values.value(code))) * largest(&mut all)
        }
    }
}

/// Outputs of experts.
type Piece = (Range<usize>, Range<usize>);

/// The segments that a matrix is cut into.
fn pieces(gpu: &Gpu, name: &str, matrix: &Matrix, parts: Parts) -> Result<Vec<(Format, Piece)>> {
    let cols = matrix.cols();
    let together = parts.together();
    let outputs = matrix.rows() / parts.experts / together;
    let each = outputs * together;
    let mut pieces = Vec::new();
    for (format, run) in matrix.formats() {
        if together > 1 && !(run.start.is_multiple_of(each) && run.end.is_multiple_of(each)) {
            return Err(Error::Model(format!("{name}: gates and what they gate are stored in different forms")));
        }
        let run = run.start / together..run.end / together;
        let row_bytes = format.row_words(cols).max(format.row_scale_words(cols)) * 4 * together;
        let most = (gpu.caps.binding_size / row_bytes.max(1) as u64) as usize;
        if most == 0 || !cols.is_multiple_of(format.block()) {
            return Err(Error::Model(format!("{name}: rows of {cols} in {format} do not fit a binding")));
        }
        pieces.extend(cut(run, outputs, most).into_iter().map(|piece| (format, piece)));
    }
    Ok(pieces)
}

/// How a matrix will lie on a device.
pub(super) fn layout(gpu: &Gpu, name: &str, matrix: &Matrix, parts: Parts) -> Result<Layout> {
    let (cols, mut bytes, mut segments) = (matrix.cols(), 0, Vec::new());
    for (format, (experts, outputs)) in pieces(gpu, name, matrix, parts)? {
        let rows = experts.len() * outputs.len() * parts.together();
        bytes += (rows * (format.row_words(cols) + format.row_scale_words(cols)) * 4) as u64;
        segments.push((format, outputs.len() as u32));
    }
    Ok(Layout { cols: cols as u32, segments, fits_halves: true, bytes })
}

/// Cuts a run of outputs, numbered through experts of `each`, into pieces of `most` at most: several experts,
/// or a part of one.
fn cut(run: Range<usize>, each: usize, most: usize) -> Vec<Piece> {
    let even = |range: Range<usize>, most: usize| {
        let size = range.len().div_ceil(range.len().div_ceil(most).max(1)).max(1);
        range.clone().step_by(size).map(move |start| start..(start + size).min(range.end)).collect::<Vec<_>>()
    };
    let whole = run.start.is_multiple_of(each) && run.end.is_multiple_of(each);
    if whole && each <= most {
        let experts = even(run.start / each..run.end / each, most / each);
        return experts.into_iter().map(|experts| (experts, 0..each)).collect();
    }
    let mut pieces = Vec::new();
    for e in run.start / each..run.end.div_ceil(each) {
        let inside = run.start.max(e * each) - e * each..run.end.min((e + 1) * each) - e * each;
        pieces.extend(even(inside, most).into_iter().map(|rows| (e..e + 1, rows)));
    }
    pieces
}
