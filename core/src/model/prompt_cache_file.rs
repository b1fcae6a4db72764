//! Prompt caches in files: safetensors, keys and values of each cache and the tokens that they stand for.

use super::{Model, ModelContainer};
use crate::{
    Error, Result,
    exec::{PAGE, Sequence},
    generate::PromptCache,
};
use half::f16;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

/// Says that a file is one of ours, and which version.
const FORMAT: (&str, &str) = ("tamarack_prompt_cache", "1");

/// Keys and values of a beginning of a conversation, [tokens, width] each.
struct Contents {
    tokens: Vec<u32>,
    admitted: u32,
    caches: Vec<[Vec<f32>; 2]>,
}

impl ModelContainer {
    /// Writes a prompt cache to a file, with texts of the program's own. Of a cache that had to give room to
    /// others, what is left is written.
    ///
    /// # Errors
    /// [`Error::Request`] if the cache is that of another model, is in use, or has dropped tokens;
    /// [`Error::Io`] if the file cannot be written.
    pub async fn save_prompt_cache(
        &self,
        cache: &PromptCache,
        path: impl AsRef<Path>,
        texts: &BTreeMap<String, String>,
    ) -> Result<()> {
        cache.check(self.engine())?;
        let path = path.as_ref();
        let (read, cache) = (path.to_owned(), cache.clone());
        let contents = self.perform(move |context| read_pages(&mut context.model, &cache)).await??;
        let widths = self.perform(|context| context.model.executor.cache_widths()).await?;
        write_file(&read, &contents, &widths, texts)
    }

    /// Reads what [`ModelContainer::save_prompt_cache`] has written, by this model.
    ///
    /// # Errors
    /// [`Error::File`] if it is no such file, or one of another model; [`Error::Memory`] if the model's own cache has no
    /// room for it.
    pub async fn load_prompt_cache(&self, path: impl AsRef<Path>) -> Result<(PromptCache, BTreeMap<String, String>)> {
        let widths = self.perform(|context| context.model.executor.cache_widths()).await?;
        let (contents, texts) = read_file(path.as_ref(), &widths, self.model_info().vocabulary)?;
        let cache = self.prompt_cache();
        let filled = cache.clone();
        self.perform(move |context| write_pages(&mut context.model, &filled, &contents)).await??;
        Ok((cache, texts))
    }
}

fn read_pages(model: &mut Model, cache: &PromptCache) -> Result<Contents> {
    let widths = model.executor.cache_widths();
    cache.peek(|tokens, sequence| {
        let Some(sequence) = sequence else {
            return Ok(Contents {
                tokens: Vec::new(),
                admitted: 0,
                caches: vec![[Vec::new(), Vec::new()]; widths.len()],
            });
        };
        if !sequence.is_whole() {
            let message = "a prompt cache that has dropped tokens cannot be saved: generate without max_kv_size";
            return Err(Error::Request(message.to_owned()));
        }
        if sequence.adapter != 0 {
            let message = "a prompt cache of an adapter cannot be saved: adapters change while files stay";
            return Err(Error::Request(message.to_owned()));
        }
        let length = sequence.fed().min(tokens.len());
        let pages = &sequence.pages()[..length.div_ceil(PAGE)];
        let mut caches = Vec::new();
        for (i, [keys, values]) in widths.iter().copied().enumerate() {
            let rows = model.executor.read_cache(i, pages)?;
            let rows = || rows.chunks_exact((keys + values).max(1)).take(length);
            caches.push([
                rows().flat_map(|r| &r[..keys]).copied().collect(),
                rows().flat_map(|r| &r[keys..]).copied().collect(),
            ]);
        }
        Ok(Contents { tokens: tokens[..length].to_vec(), admitted: sequence.admitted, caches })
    })
}

fn write_pages(model: &mut Model, cache: &PromptCache, contents: &Contents) -> Result<()> {
    let Contents { tokens, admitted, caches } = contents;
    let length = tokens.len();
    while model.pool.lacks(&Sequence::new(0, 0), length) && model.reclaim() {}
    let sequence = Sequence::reserve(length, *admitted as usize, &mut model.pool);
    let free = model.pool.free() * PAGE;
    let no_room = || Error::Memory(format!("a prompt cache of {length} tokens does not fit: {free} are free"));
    let sequence = sequence.ok_or_else(no_room)?;
    for (i, ([keys, values], widths)) in caches.iter().zip(model.executor.cache_widths()).enumerate() {
        let [keys, values] = [keys.chunks_exact(widths[0].max(1)), values.chunks_exact(widths[1].max(1))];
        let (mut keys, mut values) = (keys, values);
        let width = widths[0] + widths[1];
        let mut rows = Vec::with_capacity(length.next_multiple_of(PAGE) * width);
        for _ in 0..length {
            rows.extend_from_slice(keys.next().unwrap_or_default());
            rows.extend_from_slice(values.next().unwrap_or_default());
        }
        rows.resize(length.next_multiple_of(PAGE) * width, 0.0);
        if let Err(e) = model.executor.write_cache(i, sequence.pages(), &rows) {
            model.pool.release(sequence);
            return Err(e);
        }
    }
    cache.check_in(tokens, None, None, Some(sequence));
    model.remember(cache);
    Ok(())
}

/// In f16 where that loses nothing, as is so for what an adapter's cache holds.
fn bytes_of(values: &[f32]) -> (Dtype, Vec<u8>) {
    let is_half = values.iter().all(|v| f16::from_f32(*v).to_f32().to_bits() == v.to_bits());
    match is_half {
        true => (Dtype::F16, values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
        false => (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
    }
}

fn write_file(path: &Path, contents: &Contents, widths: &[[usize; 2]], texts: &BTreeMap<String, String>) -> Result<()> {
    let length = contents.tokens.len();
    let tokens: Vec<u8> = contents.tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
    let mut data = vec![("tokens".to_owned(), Dtype::U32, vec![length], tokens)];
    for (i, (parts, widths)) in contents.caches.iter().zip(widths).enumerate() {
        for ((name, part), width) in ["keys", "values"].into_iter().zip(parts).zip(widths) {
            let (dtype, bytes) = bytes_of(part);
            data.push((format!("{i}.{name}"), dtype, vec![length, *width], bytes));
        }
    }
    let views: Result<Vec<_>, _> = data
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect();
    let own = [(FORMAT.0, FORMAT.1.to_owned()), ("admitted", contents.admitted.to_string())];
    let own = own.into_iter().map(|(k, v)| (k.to_owned(), v));
    let metadata: HashMap<String, String> =
        texts.iter().map(|(k, v)| (format!("text.{k}"), v.clone())).chain(own).collect();
    let written = views.and_then(|views| safetensors::serialize(views, Some(metadata)));
    let written = written.map_err(|e: safetensors::SafeTensorError| Error::file(path, e.to_string()))?;
    // A file that is there already stays whole if this fails.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| Error::io(path, e))?;
    std::io::Write::write_all(&mut file, &written).map_err(|e| Error::io(path, e))?;
    file.persist(path).map_err(|e| Error::io(path, e.error))?;
    Ok(())
}

fn read_file(path: &Path, widths: &[[usize; 2]], vocabulary: usize) -> Result<(Contents, BTreeMap<String, String>)> {
    let wrong = |message: String| Error::file(path, message);
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    if metadata.get(FORMAT.0).map(String::as_str) != Some(FORMAT.1) {
        let (name, version) = FORMAT;
        let found = metadata.get(name).map_or("none", String::as_str);
        return Err(wrong(format!("expected a prompt cache ({name}: {version}), found {found}")));
    }
    let tensor = |name: &str| file.tensor(name).map_err(|e| wrong(format!("{name}: {e}")));
    let tokens = tensor("tokens")?;
    if tokens.dtype() != Dtype::U32 {
        return Err(wrong(format!("tokens: expected U32, found {:?}", tokens.dtype())));
    }
    let tokens: Vec<u32> = tokens.data().as_chunks().0.iter().map(|w| u32::from_le_bytes(*w)).collect();
    if let Some(token) = tokens.iter().find(|t| **t as usize >= vocabulary) {
        return Err(wrong(format!("token {token} is outside the vocabulary of {vocabulary}: another model's cache")));
    }
    let part = |i: usize, name: &str, width: usize| {
        let name = format!("{i}.{name}");
        let tensor = tensor(&name)?;
        let expected = [tokens.len(), width];
        if tensor.shape() != expected {
            let found = tensor.shape();
            return Err(wrong(format!("{name}: expected {expected:?}, found {found:?}: another model's cache")));
        }
        match tensor.dtype() {
            Dtype::F16 => Ok(tensor.data().as_chunks().0.iter().map(|w| f16::from_le_bytes(*w).to_f32()).collect()),
            Dtype::F32 => Ok(tensor.data().as_chunks().0.iter().map(|w| f32::from_le_bytes(*w)).collect()),
            other => Err(wrong(format!("{name}: expected F16 or F32, found {other:?}"))),
        }
    };
    let caches: Result<_> =
        widths.iter().enumerate().map(|(i, [k, v])| Ok([part(i, "keys", *k)?, part(i, "values", *v)?])).collect();
    if file.len() > 1 + 2 * widths.len() {
        return Err(wrong(format!("expected {} caches, found more: another model's cache", widths.len())));
    }
    let admitted = metadata.get("admitted").and_then(|a| a.parse().ok()).unwrap_or(0);
    let texts = metadata.into_iter().filter_map(|(k, v)| Some((k.strip_prefix("text.")?.to_owned(), v))).collect();
    Ok((Contents { caches: caches?, tokens, admitted }, texts))
}
