//! One architecture, whichever way it came into the program.

use super::{
    library::Library,
    limit::{STACK, TIME_LIMIT, within},
    reply::REPLY,
};
use crate::{
    Error, Result,
    program::custom::{PlainOps, validate_all},
};
use serde::{Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value;
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};
use tamarack_api::{
    API, Architecture, Config, Declaration, Graph, Index, ProcessRequest, Processed, TextModel, VisionLanguage,
    plugin::{RecordRequest, VisionRequest, from_bytes, guarded, record_graph},
};

/// What recording is called where it does not end.
const RECORDING: &str = "recording the model";
/// How errors begin that are the plugin's own.
const BROKEN: &[&str] = &["panicked: ", RECORDING, PROCESSING, REPLY];
/// What else a plugin does.
const PROCESSING: &str = "processing images";

/// Where an architecture comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The program registered it while it ran.
    Registered,
    /// This library.
    File(PathBuf),
    /// It is linked into the program.
    Linked,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Registered => f.write_str("registered"),
            Source::File(path) => path.display().fmt(f),
            Source::Linked => f.write_str("linked"),
        }
    }
}

/// As it is displayed: JSON has no paths that are not UTF-8.
impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An architecture that a [`super::Registry`] holds. Cheap to clone.
#[derive(Clone)]
pub struct Found(Arc<Inner>);

struct Inner {
    declaration: Declaration,
    package: String,
    version: String,
    source: Source,
    code: Code,
    limit: Duration,
}

/// What records.
#[derive(Clone)]
pub(super) enum Code {
    Here(&'static dyn Architecture),
    Library(Arc<Library>),
}

impl Found {
    pub(super) fn new(declaration: Declaration, [package, version]: [&str; 2], source: Source, code: Code) -> Found {
        let [package, version] = [package, version].map(str::to_owned);
        Found(Arc::new(Inner { declaration, package, version, source, code, limit: TIME_LIMIT }))
    }

    /// The same, which may take so long.
    pub(super) fn within(self, limit: Duration) -> Found {
        let Inner { declaration, package, version, source, code, .. } = &*self.0;
        let (declaration, package, version) = (declaration.clone(), package.clone(), version.clone());
        Found(Arc::new(Inner { declaration, package, version, source: source.clone(), code: code.clone(), limit }))
    }

    /// What it serves.
    pub fn declaration(&self) -> &Declaration {
        &self.0.declaration
    }

    /// The crate that it comes from; empty for one that the program registered itself.
    pub fn package(&self) -> &str {
        &self.0.package
    }

    /// That crate's version, likewise.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source {
        &self.0.source
    }

    /// Name, package, version and source, for people: `llama (my-llama 0.1.0, linked)`.
    pub fn origin(&self) -> String {
        let Inner { declaration, package, version, source, .. } = &*self.0;
        match package.as_str() {
            "" => format!("{} ({source})", declaration.name),
            _ => format!("{} ({package} {version}, {source})", declaration.name),
        }
    }

    /// Records the graph of this name (see [`RecordRequest::graph`]) for a `config.json` and the names and shapes of a
    /// checkpoint's tensors. Shapes of the result are inferred by the host.
    ///
    /// # Errors
    /// [`Error::Model`] if configuration, tensors and architecture do not fit together, and
    /// [`Error::Plugin`] if the plugin panicked, did not come to an end or sent what is no graph. Both begin
    /// with [`Found::origin`].
    pub fn record(&self, graph: &str, config: &Value, index: Index) -> Result<Graph> {
        let all = index.len();
        let graph = self.record_some(graph, config, index)?;
        graph.refuse_unused(all).map_err(|e| Error::Model(format!("{}: {e}", self.origin())))?;
        Ok(graph)
    }

    /// The same, where tensors may be left over: [`Graph::unused`]. A library that was built for api 1.4 or earlier refuses
    /// them.
    ///
    /// # Errors
    /// Likewise.
    pub fn record_some(&self, graph: &str, config: &Value, index: Index) -> Result<Graph> {
        let model = |e: String| match BROKEN.iter().any(|start| e.starts_with(start)) {
            true => self.broken(e),
            false => Error::Model(format!("{}: {e}", self.origin())),
        };
        match &self.0.code {
            Code::Here(architecture) => {
                let (architecture, graph, config) = (*architecture, graph.to_owned(), Config::from(config.clone()));
                let here = move || guarded(|| record_graph(architecture, &graph, &config, index));
                let mut graph = within(self.0.limit, STACK, RECORDING, here).map_err(model)?;
                graph.check().map_err(|e| self.broken(e.0))?;
                Ok(graph)
            }
            Code::Library(library) => {
                let (request, library) = (self.request(graph, config, &index)?, library.clone());
                let there = move || library.call("record", &request);
                let reply = within(self.0.limit, STACK, RECORDING, there).map_err(model)?;
                Graph::decode_for(&reply, index).map_err(|e| self.broken(e.0))
            }
        }
        .and_then(|graph| validate_all(&graph).map_err(|e| self.broken(e)).map(|()| graph))
    }

    /// The tensors that it uses for a `config.json`, without those that are optional.
    ///
    /// # Errors
    /// As for [`Found::record`]. A library that was built for api 1.0 cannot tell.
    pub fn tensors(&self, config: &Value) -> Result<Index> {
        let failed = |e: String| self.broken(e);
        match &self.0.code {
            Code::Here(architecture) => {
                let (architecture, config) = (*architecture, Config::from(config.clone()));
                let here = move || guarded(|| tamarack_api::tensors(architecture, &config).map_err(|e| e.0));
                within(self.0.limit, STACK, RECORDING, here).map_err(failed)
            }
            Code::Library(library) => {
                let (request, library) = (self.request("text", config, &Index::new())?, library.clone());
                let reply = within(self.0.limit, STACK, RECORDING, move || library.call("tensors", &request));
                serde_json::from_slice(&reply.map_err(failed)?).map_err(|e| failed(format!("its tensors: {e}")))
            }
        }
    }

    /// The text model of a vision-language model, which another architecture records; none if the architecture records
    /// all of it itself.
    ///
    /// # Errors
    /// As for [`Found::record`].
    pub fn text_model(&self, config: &Value) -> Result<Option<TextModel>> {
        if !self.declaration().sees {
            return Ok(None);
        }
        let work = |model: &dyn VisionLanguage, config: &Config, _: &ProcessRequest| model.text(config);
        self.vision("text_model", config, ProcessRequest::default(), work).map(Some)
    }

    /// What becomes of a prompt and its images.
    ///
    /// # Errors
    /// [`Error::Request`] if they do not fit together, or the model does not take such images; [`Error::Plugin`] if the
    /// plugin panicked or did not come to an end.
    pub fn process(&self, config: &Value, request: ProcessRequest) -> Result<Processed> {
        self.vision("process", config, request, |model, config, request| model.process(config, request))
            .map_err(|e| if let Error::Model(e) = e { Error::Request(e) } else { e })
    }

    fn vision<T: DeserializeOwned + Send + 'static>(
        &self,
        entry: &'static str,
        config: &Value,
        process: ProcessRequest,
        work: fn(&dyn VisionLanguage, &Config, &ProcessRequest) -> tamarack_api::Result<T>,
    ) -> Result<T> {
        let failed = |e: String| match BROKEN.iter().any(|start| e.starts_with(start)) {
            true => self.broken(e),
            false => Error::Model(format!("{}: {e}", self.origin())),
        };
        match &self.0.code {
            Code::Here(architecture) => {
                let (architecture, config) = (*architecture, Config::from(config.clone()));
                let here = move || {
                    let model = architecture.vision().ok_or("is no vision-language model")?;
                    guarded(|| work(model, &config, &process).map_err(|e| e.0))
                };
                within(self.0.limit, STACK, PROCESSING, here).map_err(failed)
            }
            Code::Library(library) => {
                let architecture = self.declaration().name.clone();
                let request = VisionRequest { architecture, config: config.clone(), process };
                let request = serde_json::to_vec(&request).map_err(|e| failed(e.to_string()))?;
                let library = library.clone();
                let there = move || library.call(entry, &request);
                let reply = within(self.0.limit, STACK, PROCESSING, there).map_err(failed)?;
                serde_json::from_slice(&reply).map_err(|e| self.broken(unfit(entry, &e.to_string())))
            }
        }
    }

    /// Its custom ops in plain arithmetic, which it computes itself.
    pub fn plain_ops(&self) -> PlainOps {
        let found = self.clone();
        PlainOps::new(move |mut request, values| {
            request.architecture.clone_from(&found.declaration().name);
            match &found.0.code {
                Code::Here(architecture) => guarded(|| {
                    let plain = architecture.plain(&request.op).ok_or_else(|| "it has no plain form".to_owned())?;
                    Ok(request.run(plain, values))
                }),
                Code::Library(library) => {
                    let (request, library) = (request.encode(values)?, library.clone());
                    let reply = within(found.0.limit, STACK, "a plain form", move || library.call("plain", &request))?;
                    Ok(from_bytes(&reply))
                }
            }
            .map_err(|e| format!("{}: {e}", found.origin()))
        })
    }

    /// Whether it is for such models.
    pub(super) fn serves(&self, model_type: &str) -> bool {
        self.declaration().model_types.iter().any(|t| t == model_type)
    }

    /// Whether both are the same entry of one registry.
    pub(super) fn is(&self, other: &Found) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn request(&self, graph: &str, config: &Value, index: &Index) -> Result<Vec<u8>> {
        let (architecture, graph, config) = (self.declaration().name.clone(), graph.to_owned(), config.clone());
        let request = RecordRequest { architecture, graph, config, index, api: Some(API) };
        serde_json::to_vec(&request).map_err(|e| self.broken(format!("the request cannot be encoded: {e}")))
    }

    fn broken(&self, message: String) -> Error {
        Error::Plugin(format!("{}: {message}", self.origin()))
    }
}

/// What is said of a reply that this host does not understand: all of it counts, so what is unknown is not passed over.
fn unfit(entry: &str, message: &str) -> String {
    let named = |kind: &str| message.split(kind).nth(1)?.split('`').next();
    match named("unknown field `").or_else(|| named("unknown variant `")) {
        Some(name) => {
            let (major, minor) = API;
            format!("needs `{name}` in its reply to `{entry}`, this host has api {major}.{minor}: update the host")
        }
        None => format!("{REPLY}`{entry}`: {message}"),
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::super::library::tests::fake;
    use super::*;
    use abi_stable::std_types::{RResult, RSlice, RStr, RString, RVec};
    use serde_json::json;
    use tamarack_api::{Step, Tensor, Weights};

    extern "C" fn no_description() -> RVec<u8> {
        RVec::new()
    }

    /// Answers with what the configuration says.
    extern "C" fn echo(entry: RStr<'_>, request: RSlice<'_, u8>) -> RResult<RVec<u8>, RString> {
        let request: RecordRequest = serde_json::from_slice(&request).unwrap();
        assert_eq!((entry.as_str(), request.graph.as_str(), request.architecture.as_str()), ("record", "text", "fake"));
        match request.config["fails"].as_str() {
            Some(message) => RResult::RErr(message.into()),
            None if request.config["huge"].is_boolean() => RResult::ROk(vec![b' '; (64 << 20) + 1].into()),
            None => RResult::ROk(request.config["graph"].to_string().into_bytes().into()),
        }
    }

    #[test]
    fn what_a_library_sends_is_believed_in_nothing() {
        let code = Code::Library(Arc::new(fake(no_description, echo)));
        let source = Source::File("/plugins/fake.so".into());
        let found = Found::new(Declaration::llm("fake", &["fake"]), ["pack", "0.3.0"], source, code);
        let graph = |nodes: Value, output: u32| json!({ "graph": { "api": [1, 9], "nodes": nodes, "weights": [], "ropes": [], "places": ["a.rs:1"], "output": output } });
        let host = format!("{}.{}", tamarack_api::API.0, tamarack_api::API.1);
        for (config, expected) in [
            (json!({ "fails": "model.norm.weight: absent" }), "Model: model.norm.weight: absent".into()),
            (json!({ "fails": "panicked: at the disco" }), "Plugin: panicked: at the disco".into()),
            (
                json!({ "huge": true }),
                "Plugin: its reply to `record`: expected at most 67108864 bytes, found 67108865".into(),
            ),
            (json!({ "graph": 7 }), format!("Plugin: the graph (api {host}) does not fit api {host}")),
            (graph(json!([]), 0), "Plugin: the output is not logits".into()),
            (
                graph(json!([{ "op": { "warp_drive": {} }, "at": 0 }]), 0),
                format!("Plugin: needs op `warp_drive` (api 1.9), this host has api {host}: update the host"),
            ),
            (
                graph(json!([{ "op": { "outputs": {} }, "inputs": [3], "at": 0 }]), 0),
                "Plugin: a.rs:1: outputs: takes node 3, which does not come before it".into(),
            ),
        ] {
            let e = found.record("text", &config, Index::new()).unwrap_err();
            let kind = if matches!(e, Error::Model(_)) { "Model" } else { "Plugin" };
            let e = e.to_string();
            let e = e.strip_prefix("fake (pack 0.3.0, /plugins/fake.so): ").unwrap_or_else(|| panic!("{e}"));
            assert!(format!("{kind}: {e}").starts_with(&expected), "{kind}: {e}");
        }
    }

    /// Does what its configuration says.
    struct Moody;

    impl Architecture for Moody {
        fn declaration(&self) -> Declaration {
            Declaration::llm("moody", &["moody"])
        }
        fn text(&self, config: &Config, w: &Weights, step: &Step) -> tamarack_api::Result<Tensor> {
            let table = w.embedding("table", [4, 2]);
            assert!(config.json()["sulks"].is_null(), "not today");
            Ok(table.as_linear().forward(step.outputs(table.forward(step.tokens()))))
        }
    }

    #[test]
    fn a_panic_here_is_an_error_too() {
        let found = Found::new(Moody.declaration(), ["", ""], Source::Registered, Code::Here(&Moody));
        let record = |config| found.record("text", &config, Index::from([("table.weight".into(), vec![4, 2])]));
        let e = record(json!({ "sulks": true })).unwrap_err();
        assert!(matches!(&e, Error::Plugin(e) if e == "moody (registered): panicked: not today"), "{e}");
        assert_eq!(record(json!({})).unwrap().nodes.len(), 4);
        let e = found.record("vision", &json!({}), Index::new()).unwrap_err();
        assert_eq!(e.to_string(), "moody (registered): has no graph `vision`");
    }
    /// Answers with what the prompt says.
    extern "C" fn processor(entry: RStr<'_>, request: RSlice<'_, u8>) -> RResult<RVec<u8>, RString> {
        let request: VisionRequest = serde_json::from_slice(&request).unwrap();
        assert_eq!(entry.as_str(), "process");
        RResult::ROk(request.process.prompt.into_bytes().into())
    }

    /// A newer plugin may say of a prompt what this host has no idea of: then it is refused, and not half understood.
    #[test]
    fn what_is_unknown_in_a_reply_is_not_passed_over() {
        let code = Code::Library(Arc::new(fake(no_description, processor)));
        let declaration = Declaration::vlm("fake", &["fake"]);
        let found = Found::new(declaration, ["", ""], Source::File("/plugins/fake.so".into()), code);
        let process = |reply: Value| {
            let request = ProcessRequest { prompt: reply.to_string(), ..ProcessRequest::default() };
            found.process(&json!({}), request)
        };
        let known = serde_json::to_value(Processed::default()).unwrap();
        assert_eq!(process(known.clone()).unwrap(), Processed::default());
        let old = json!({ "prompt": "a", "image_token": 7, "media": [] });
        assert_eq!(process(old).unwrap().image_token, 7, "fields that came later may be missing");
        let with = |at: &str, field: &str| {
            let mut reply = known.clone();
            reply["media"] = json!([tamarack_api::Medium::default()]);
            reply.pointer_mut(at).unwrap()[field] = json!(true);
            process(reply).unwrap_err().to_string()
        };
        let host = format!("this host has api {}.{}: update the host", API.0, API.1);
        for (at, field) in [("", "is_dream"), ("/media/0", "sound")] {
            let e = with(at, field);
            assert!(e.ends_with(&format!("needs `{field}` in its reply to `process`, {host}")), "{e}");
        }
        let e = process(json!({ "prompt": 7 })).unwrap_err().to_string();
        assert!(e.contains("its reply to `process`: invalid type"), "{e}");
    }
}
