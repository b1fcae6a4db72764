//! The beginning of a GGUF file on the hub, without the rest.

use super::{Hub, Trouble, remote::Piece, select, select::Source};
use crate::checkpoint::gguf::{self, Beginning};
use crate::{Error, Result};

/// What is asked for first, by how much more then, and at most: metadata before the vocabulary is a few kilobytes.
const FIRST: usize = 1 << 16;
const GROWTH: usize = 8;
const MOST: usize = 32 << 20;

impl Hub {
    /// The `model_type` of a GGUF file of the hub, from as much of its beginning as that takes; `None` where only the whole
    /// file can tell, or the hub cannot be asked.
    pub(crate) async fn gguf_model_type(&self, id: &str, revision: &str) -> Result<Option<String>> {
        let source = Source::parse(id)?;
        let revision = select::check_revision(revision)?;
        let (Some(file), false) = (&source.file, self.offline) else { return Ok(None) };
        // Of a model in several parts the first says what it is.
        let file = select::first_part(file);
        let mut bytes = Vec::new();
        let mut wanted = FIRST;
        while wanted <= MOST {
            let is_grown = self.grow(&source.repo, revision, &file, &mut bytes, wanted).await;
            let Ok(is_more) = is_grown else { return Ok(None) };
            match gguf::beginning(&bytes).map_err(|e| Error::UnsupportedModelType(format!("{id}: {e}")))? {
                Beginning::ModelType(model_type) => return Ok(Some(model_type)),
                Beginning::TooShort if is_more => wanted *= GROWTH,
                Beginning::TooShort => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Fetches a file's bytes up to `wanted`, behind those that are there. Whether the file goes on.
    async fn grow(
        &self,
        repo: &str,
        revision: &str,
        file: &str,
        bytes: &mut Vec<u8>,
        wanted: usize,
    ) -> Result<bool, Trouble> {
        let range = bytes.len() as u64..wanted as u64;
        let mut response = match self.remote.file(repo, revision, file, Some(range)).await? {
            Piece::Range(response) => response,
            Piece::Whole(response) => {
                bytes.clear();
                response
            }
            Piece::None => return Ok(false),
        };
        while bytes.len() < wanted {
            let Some(piece) = response.chunk().await.map_err(Trouble::Network)? else { return Ok(false) };
            bytes.extend_from_slice(&piece);
        }
        Ok(true)
    }
}
