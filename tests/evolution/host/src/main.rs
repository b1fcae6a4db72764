//! `old-host LIBRARY < REQUEST`: loads a plugin as hosts of api 1.0 did, sends it an encoded request to record, and prints
//! what became of it.

use abi_stable::{library::lib_header_from_path, std_types::RSlice};
use std::{io::Read, path::Path};
use tamarack_abi::PluginRef;
use tamarack_api::{Graph, plugin::Description};

fn main() {
    let library = std::env::args().nth(1).expect("a library");
    let mut request = Vec::new();
    std::io::stdin().read_to_end(&mut request).expect("a request");
    match record(Path::new(&library), &request) {
        Ok(graph) => println!("{} nodes, logits {:?}", graph.nodes.len(), graph.shape(graph.output)),
        Err(e) => println!("refused: {e}"),
    }
}

fn record(library: &Path, request: &[u8]) -> Result<Graph, String> {
    let header = lib_header_from_path(library).map_err(|e| e.to_string())?;
    let plugin: PluginRef = header.init_root_module().map_err(|e| e.to_string())?;
    let described: Vec<u8> = plugin.describe()().into();
    let description: Description = serde_json::from_slice(&described).map_err(|e| e.to_string())?;
    if description.api.0 != tamarack_api::API.0 {
        return Err(format!("api {:?}", description.api));
    }
    let reply = plugin.call()("record".into(), RSlice::from_slice(request)).into_result();
    let reply: Vec<u8> = reply.map_err(|e| e.to_string())?.into();
    Graph::decode(&reply).map_err(|e| e.to_string())
}
