//! Which model, and what is said about it beside what its files say.

use crate::{
    GenerateParameters, Result,
    hub::{Hub, MODEL_FILES},
    text::{ReasoningFormat, ToolCallFormat},
};
use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

/// Where a model's files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identifier {
    /// A repository of the HuggingFace hub.
    Hub {
        /// `org/name`, or `org/name:file.gguf` for one GGUF file of it.
        id: String,
        /// A branch, a tag or a commit.
        revision: String,
    },
    /// A folder with `config.json` and `*.safetensors`.
    Directory(PathBuf),
    /// A `.gguf` file; of a split model any one of its files.
    Gguf(PathBuf),
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identifier::Hub { id, revision } if revision == MAIN => f.write_str(id),
            Identifier::Hub { id, revision } => write!(f, "{id} ({revision})"),
            Identifier::Directory(path) | Identifier::Gguf(path) => path.display().fmt(f),
        }
    }
}

const MAIN: &str = "main";

/// A model and its settings.
///
/// ```
/// use tamarack::ModelConfiguration;
///
/// let configuration = ModelConfiguration::hub("HuggingFaceTB/SmolLM2-135M-Instruct")
///     .revision("main")
///     .extra_eos_token("<|im_end|>");
/// assert_eq!(configuration.name, "SmolLM2-135M-Instruct");
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ModelConfiguration {
    /// Where its files are.
    pub id: Identifier,
    /// What people call it.
    pub name: String,
    /// Where the tokenizer comes from, if not from the model: a hub id or a folder.
    pub tokenizer_id: Option<String>,
    /// The kind of tokenizer, in place of the one that a GGUF file names (`tokenizer.ggml.pre`): `llama-bpe`, `qwen2`
    /// and so on. A `tokenizer.json` leaves nothing open, and nothing changes for one.
    pub override_tokenizer: Option<String>,
    /// A prompt to try it with.
    pub default_prompt: String,
    /// Tokens that end a generation, beside those that the files name, as the vocabulary spells them.
    pub extra_eos_tokens: BTreeSet<String>,
    /// Ids of tokens that end a generation. A loaded model's configuration has all of them here.
    pub eos_token_ids: BTreeSet<u32>,
    /// Texts that end a generation. A loaded model's configuration has those of its files too.
    pub stop_strings: Vec<String>,
    /// How tokens are chosen where a program does not say: [`crate::ModelContainer::generate_parameters`]. A loaded model's
    /// configuration has what its files ask for, if nothing was said here: generation_config.json, or the `general.sampling`
    /// keys of a GGUF file.
    pub generate_parameters: Option<GenerateParameters>,
    /// How the model writes tool calls. A loaded model's configuration has what its files or its architecture tell, if
    /// nothing was said here; where nobody tells, it is [`ToolCallFormat::Json`] as soon as there are tools.
    pub tool_call_format: Option<ToolCallFormat>,
    /// The tags between which the model reasons, likewise.
    pub reasoning_format: Option<ReasoningFormat>,
}

impl ModelConfiguration {
    /// A repository of the hub, `org/name`, or `org/name:file.gguf` for one GGUF file of it.
    pub fn hub(id: impl Into<String>) -> ModelConfiguration {
        let id = id.into();
        let name = id.rsplit('/').next().unwrap_or(&id).to_owned();
        Self::new(Identifier::Hub { id, revision: MAIN.to_owned() }, name)
    }

    /// A folder with `config.json` and `*.safetensors`.
    pub fn directory(path: impl Into<PathBuf>) -> ModelConfiguration {
        let path = path.into();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self::new(Identifier::Directory(path), name)
    }

    /// A `.gguf` file; of a split model any one of its files.
    pub fn gguf(path: impl Into<PathBuf>) -> ModelConfiguration {
        let path = path.into();
        let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self::new(Identifier::Gguf(path), name)
    }

    /// What a user writes for a model: the path of a folder or of a `.gguf` file, or a hub id. What
    /// exists, or looks like a path and like no hub id, is a path.
    pub fn parse(text: &str) -> ModelConfiguration {
        let path = Path::new(text);
        let looks_local = path.is_absolute() || [".", "~", "\\"].iter().any(|p| text.starts_with(p));
        let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        if path.is_file() || (is_gguf && (looks_local || !text.contains('/'))) {
            Self::gguf(path)
        } else if path.is_dir() || looks_local {
            Self::directory(path)
        } else {
            Self::hub(text)
        }
    }

    fn new(id: Identifier, name: String) -> ModelConfiguration {
        ModelConfiguration {
            id,
            name,
            tokenizer_id: None,
            override_tokenizer: None,
            default_prompt: "hello".to_owned(),
            extra_eos_tokens: BTreeSet::new(),
            eos_token_ids: BTreeSet::new(),
            stop_strings: Vec::new(),
            generate_parameters: None,
            tool_call_format: None,
            reasoning_format: None,
        }
    }

    /// Another branch, tag or commit of a hub repository; nothing changes for a path.
    pub fn revision(mut self, wanted: impl Into<String>) -> ModelConfiguration {
        if let Identifier::Hub { revision, .. } = &mut self.id {
            *revision = wanted.into();
        }
        self
    }

    /// What people call it. Registries know it by this name, too.
    pub fn name(mut self, name: impl Into<String>) -> ModelConfiguration {
        self.name = name.into();
        self
    }

    /// More tokens that end a generation.
    pub fn extra_eos_tokens(mut self, tokens: impl IntoIterator<Item = impl Into<String>>) -> ModelConfiguration {
        self.extra_eos_tokens.extend(tokens.into_iter().map(Into::into));
        self
    }

    /// Ids of more tokens that end a generation.
    pub fn eos_token_ids(mut self, ids: impl IntoIterator<Item = u32>) -> ModelConfiguration {
        self.eos_token_ids.extend(ids);
        self
    }

    /// One more token that ends a generation.
    pub fn extra_eos_token(mut self, token: impl Into<String>) -> ModelConfiguration {
        self.extra_eos_tokens.insert(token.into());
        self
    }

    /// A prompt to try it with.
    pub fn default_prompt(mut self, prompt: impl Into<String>) -> ModelConfiguration {
        self.default_prompt = prompt.into();
        self
    }

    /// One more text that ends a generation.
    pub fn stop_string(mut self, text: impl Into<String>) -> ModelConfiguration {
        self.stop_strings.push(text.into());
        self
    }

    /// How tokens are chosen where a program does not say, in place of what the model's files ask for.
    pub fn generate_parameters(mut self, parameters: GenerateParameters) -> ModelConfiguration {
        self.generate_parameters = Some(parameters);
        self
    }

    /// How the model writes tool calls.
    pub fn tool_call_format(mut self, format: ToolCallFormat) -> ModelConfiguration {
        self.tool_call_format = Some(format);
        self
    }

    /// The tags between which the model reasons.
    pub fn reasoning_format(mut self, format: ReasoningFormat) -> ModelConfiguration {
        self.reasoning_format = Some(format);
        self
    }

    /// Where the tokenizer comes from: a hub id or a folder.
    pub fn tokenizer_id(mut self, id: impl Into<String>) -> ModelConfiguration {
        self.tokenizer_id = Some(id.into());
        self
    }

    /// The kind of tokenizer, in place of the one that a GGUF file names.
    pub fn override_tokenizer(mut self, kind: impl Into<String>) -> ModelConfiguration {
        self.override_tokenizer = Some(kind.into());
        self
    }

    /// The model's folder or file on this machine: where it is, or where `hub` keeps what was downloaded.
    ///
    /// # Errors
    /// [`crate::Error::Hub`] if it has not been downloaded, or not all of it.
    pub fn model_directory(&self, hub: &Hub) -> Result<PathBuf> {
        match &self.id {
            Identifier::Directory(path) | Identifier::Gguf(path) => Ok(path.clone()),
            Identifier::Hub { id, revision } => hub.cached(id, Some(revision), MODEL_FILES),
        }
    }
}

impl From<&str> for ModelConfiguration {
    fn from(text: &str) -> ModelConfiguration {
        ModelConfiguration::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_is_told_apart() {
        let hub = |id: &str| Identifier::Hub { id: id.into(), revision: "main".into() };
        let here = env!("CARGO_MANIFEST_DIR");
        let file = format!("{here}/Cargo.toml");
        for (text, id, name) in [
            ("org/name", hub("org/name"), "name"),
            ("org/name:a.gguf", hub("org/name:a.gguf"), "name:a.gguf"),
            ("org/name/a.gguf", hub("org/name/a.gguf"), "a.gguf"),
            ("gpt2", hub("gpt2"), "gpt2"),
            (here, Identifier::Directory(here.into()), "core"),
            (&file, Identifier::Gguf(file.clone().into()), "Cargo"),
            ("./absent", Identifier::Directory("./absent".into()), "absent"),
            ("/absent/a.GGUF", Identifier::Gguf("/absent/a.GGUF".into()), "a"),
            ("a.gguf", Identifier::Gguf("a.gguf".into()), "a"),
        ] {
            let found = ModelConfiguration::parse(text);
            assert_eq!((&found.id, found.name.as_str()), (&id, name), "{text}");
        }
        assert_eq!(ModelConfiguration::hub("a/b").revision("v1").id.to_string(), "a/b (v1)");
    }
}
