//! The container: key-values and tensor descriptions, read from bytes that nobody vouches for.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::BTreeSet;
use std::ops::Range;

use super::metadata::{Metadata, Value};

/// Metadata values in one file, list items included. The largest vocabularies need a million.
const MAX_VALUES: usize = 1 << 22;
const MAX_KEY: usize = 65535;
const MAX_NAME: usize = 255;
const MAX_NESTING: usize = 2;

/// A parsed header.
#[derive(Debug)]
pub struct Header {
    /// All key-values.
    pub metadata: Metadata,
    /// The tensors, in the file's order.
    pub tensors: Vec<Info>,
}

/// Where a tensor lies and what it is.
#[derive(Debug)]
pub struct Info {
    /// Its GGUF name.
    pub name: String,
    /// Dimensions, slowest first (the file has them the other way round).
    pub shape: Vec<usize>,
    /// The number of its type.
    pub type_id: u32,
    /// Where in the file it begins. That it ends inside is for the reader of the type to check.
    pub start: usize,
}

/// Reads the header of a GGUF file, version 2 or 3. Memory stays within a small multiple of the
/// bytes that are really there, whatever the counts in them claim.
///
/// # Errors
/// Says what is wrong and where; names the key or tensor.
pub fn parse(bytes: &[u8]) -> Result<Header, String> {
    let mut c = Cursor { bytes, at: 0, values: 0 };
    c.version()?;
    // The smallest tensor description has 8 + 1 + 4 + 8 + 4 + 8 bytes, the smallest key-value 8 + 1 + 4 + 1.
    let tensor_count = c.count(33, "tensors")?;
    let pair_count = c.count(14, "key-values")?;
    let mut metadata = Metadata::default();
    for _ in 0..pair_count {
        let key = c.string(MAX_KEY).map_err(|e| format!("key: {e}"))?;
        let type_id = c.u32()?;
        let value = c.value(type_id, 0).map_err(|e| format!("{key}: {e}"))?;
        if metadata.0.insert(key.clone(), value).is_some() {
            return Err(format!("{key}: the key is there twice"));
        }
    }
    let mut tensors = vec![];
    let mut names = BTreeSet::new();
    for _ in 0..tensor_count {
        let info = c.tensor()?;
        if !names.insert(info.name.clone()) {
            return Err(format!("{}: the tensor is there twice", info.name));
        }
        tensors.push(info);
    }
    place(&metadata, c.at, &mut tensors)?;
    Ok(Header { metadata, tensors })
}

/// The key-values at the beginning of a GGUF file, as many as `bytes` hold whole, and whether these are all.
///
/// # Errors
/// It is no GGUF file, or one of another version.
pub(super) fn metadata(bytes: &[u8]) -> Result<(Metadata, bool), String> {
    let mut c = Cursor { bytes, at: 0, values: 0 };
    c.version()?;
    let mut metadata = Metadata::default();
    let (Ok(_), Ok(pair_count)) = (c.u64(), c.u64()) else { return Ok((metadata, false)) };
    for _ in 0..pair_count {
        let pair = c.string(MAX_KEY).and_then(|key| Ok((key, c.u32()?)));
        let Ok((key, value)) = pair.and_then(|(key, type_id)| Ok((key, c.value(type_id, 0)?))) else {
            return Ok((metadata, false));
        };
        metadata.0.insert(key, value);
    }
    Ok((metadata, true))
}

/// Turns offsets in the data section, which begins at the next multiple of the alignment after
/// `header`, into offsets in the file.
fn place(metadata: &Metadata, header: usize, tensors: &mut [Info]) -> Result<(), String> {
    let alignment = match metadata.get("general.alignment") {
        None => Some(32),
        Some(value) => value.as_u64().and_then(|a| u32::try_from(a).ok()).filter(|a| a.is_power_of_two()),
    };
    let alignment = alignment.ok_or("general.alignment: expected a power of two")? as usize;
    let overflow = |name: &str| format!("{name}: lies outside the file");
    for info in tensors {
        let data = header.checked_next_multiple_of(alignment).ok_or_else(|| overflow(&info.name))?;
        if info.start % alignment != 0 {
            return Err(format!("{}: offset {} is no multiple of {alignment}", info.name, info.start));
        }
        info.start = data.checked_add(info.start).ok_or_else(|| overflow(&info.name))?;
    }
    Ok(())
}

/// Fails if two of the named ranges overlap.
pub(super) fn check_overlap(mut ranges: Vec<(Range<usize>, &str)>) -> Result<(), String> {
    ranges.sort_by_key(|(range, _)| (range.start, range.end));
    match ranges.windows(2).find(|pair| pair[1].0.start < pair[0].0.end) {
        Some(pair) => Err(format!("{} and {} overlap", pair[0].1, pair[1].1)),
        None => Ok(()),
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Metadata values read so far.
    values: usize,
}

impl<'a> Cursor<'a> {
    /// Reads what the file begins with, and refuses what cannot be read.
    fn version(&mut self) -> Result<(), String> {
        if self.take(4)? != b"GGUF" {
            return Err("expected a GGUF file or a model directory: the file does not begin with `GGUF`".into());
        }
        match self.u32()? {
            2 | 3 => Ok(()),
            1 => Err("GGUF version 1 is not supported; convert the model again".into()),
            v if v & 0xffff == 0 => Err("big-endian GGUF is not supported; convert for little-endian".into()),
            v => Err(format!("expected GGUF version 2 or 3, found {v}")),
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or_else(|| {
            format!(
                "the file ends early: expected {n} bytes at offset {}, found {}: is it complete?",
                self.at,
                rest.len()
            )
        })?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of items of at least `min` bytes each, all of which must still be ahead.
    fn count(&mut self, min: usize, what: &str) -> Result<usize, String> {
        let n = self.u64()?;
        let room = (self.bytes.len() - self.at) / min;
        usize::try_from(n).ok().filter(|n| *n <= room).ok_or_else(|| {
            format!(
                "expected {n} {what} after offset {}, the rest of the file has room for {room}: is it complete?",
                self.at
            )
        })
    }

    fn string(&mut self, max: usize) -> Result<String, String> {
        let n = self.count(1, "bytes of text")?;
        if n > max {
            return Err(format!("expected text of {max} bytes at most, found {n}"));
        }
        let text = std::str::from_utf8(self.take(n)?).map_err(|e| format!("text is not UTF-8: {e}"))?;
        Ok(text.to_owned())
    }

    fn value(&mut self, type_id: u32, depth: usize) -> Result<Value, String> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("the file has more than {MAX_VALUES} metadata values"));
        }
        Ok(match type_id {
            0 => Value::U64(self.array::<1>()?[0].into()),
            1 => Value::I64(i8::from_le_bytes(self.array()?).into()),
            2 => Value::U64(u16::from_le_bytes(self.array()?).into()),
            3 => Value::I64(i16::from_le_bytes(self.array()?).into()),
            4 => Value::U64(self.u32()?.into()),
            5 => Value::I64(i32::from_le_bytes(self.array()?).into()),
            6 => Value::F64(f32::from_le_bytes(self.array()?).into()),
            7 => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [b] => return Err(format!("expected a truth value 0 or 1, found {b}")),
            },
            8 => Value::String(self.string(usize::MAX)?),
            9 => self.list(depth + 1)?,
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            _ => return Err(format!("expected a value type 0 to 12, found {type_id}")),
        })
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_NESTING {
            return Err(format!("lists are nested deeper than {MAX_NESTING}"));
        }
        let type_id = self.u32()?;
        let smallest = match type_id {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            9 => 12,
            _ => 8,
        };
        let n = self.count(smallest, "list items")?;
        if n > MAX_VALUES - self.values {
            return Err(format!("the file has more than {MAX_VALUES} metadata values"));
        }
        (0..n).map(|_| self.value(type_id, depth)).collect::<Result<_, _>>().map(Value::Array)
    }

    fn tensor(&mut self) -> Result<Info, String> {
        let name = self.string(MAX_NAME).map_err(|e| format!("tensor name: {e}"))?;
        let fail = |message: String| format!("{name}: {message}");
        let rank = self.u32()?;
        if !(1..=4).contains(&rank) {
            return Err(fail(format!("expected 1 to 4 dimensions, found {rank}")));
        }
        let mut shape = vec![];
        for _ in 0..rank {
            let dim = self.u64()?;
            let dim = usize::try_from(dim).ok().filter(|d| *d > 0);
            shape.push(dim.ok_or_else(|| fail("a dimension is zero or absurdly large".into()))?);
        }
        shape.reverse();
        let type_id = self.u32()?;
        let offset = self.u64()?;
        let start = usize::try_from(offset).map_err(|_| fail(format!("offset {offset} lies outside the file")))?;
        Ok(Info { name, shape, type_id, start })
    }
}
