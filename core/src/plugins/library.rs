//! A plugin library: from a path to the two functions of its root module.

use super::{
    binary,
    limit::{STACK, within},
    reply,
};
use abi_stable::{
    library::{LibraryError, lib_header_from_path},
    std_types::{RResult, RSlice, RVec},
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, io::Read, path::Path, time::Duration};
use tamarack_abi::PluginRef;
use tamarack_api::{
    API,
    plugin::{Described, Description},
};

/// What helps where a plugin speaks otherwise than its version of the api should.
const REBUILD: &str = "rebuild the plugin with a released tamarack-api";

/// No plugin is longer than this, in bytes.
const MAX_LEN: u64 = 256 << 20;

/// Architectures of a library, and model types of each.
const MAX_NAMES: usize = 1000;

/// Bytes of a name.
const MAX_NAME: usize = 200;

/// A loaded library. It is never unloaded: threads and thread-local destructors may still need its code.
pub struct Library(PluginRef);

impl Library {
    /// Loads the library at `path`, a link or the file itself, and asks what it holds; errors say what
    /// is wrong with the file, without its path.
    pub fn open(path: &Path, limit: Duration) -> Result<(Library, Description), String> {
        let bytes = read(path)?;
        binary::check(&bytes)?;
        let path = path.to_owned();
        // The library's initialisers and the authors' declarations run.
        within(limit, STACK, "loading it", move || {
            let library = Library(load(&path, &bytes)?);
            let description = library.describe()?;
            Ok((library, description))
        })
    }

    /// Runs an entry point of the plugin, which catches its own panics.
    pub fn call(&self, entry: &str, request: &[u8]) -> Result<RVec<u8>, String> {
        match self.0.call()(entry.into(), RSlice::from_slice(request)) {
            RResult::ROk(reply) => reply::check(entry, &reply).map(|()| reply),
            RResult::RErr(message) => Err(reply::cut(&message)),
        }
    }

    fn describe(&self) -> Result<Description, String> {
        let bytes = self.0.describe()();
        if bytes.is_empty() {
            return Err("panicked in Architecture::declaration: ask its author to mend it".into());
        }
        reply::check("describe", &bytes)?;
        let json: Value =
            serde_json::from_slice(&bytes).map_err(|e| format!("its description is not JSON: {e}: {REBUILD}"))?;
        // First of all, since another major version may describe itself differently.
        check_api(&json["api"])?;
        let description: Description =
            serde_json::from_value(json).map_err(|e| format!("its description does not fit: {e}: {REBUILD}"))?;
        check_names(&description)?;
        Ok(description)
    }
}

/// A newer minor version may load: only a graph with an op that this host lacks is refused, when it is
/// recorded.
fn check_api(api: &Value) -> Result<(), String> {
    let (major, minor): (u32, u32) = serde_json::from_value(api.clone())
        .map_err(|e| format!("its description names no api version: {e}: {REBUILD}"))?;
    let remedy = match major.cmp(&API.0) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less => "rebuild the plugin",
        std::cmp::Ordering::Greater => "update the host",
    };
    Err(format!("was built for api {major}.{minor}, this host has api {}.{}: {remedy}", API.0, API.1))
}

fn check_names(description: &Description) -> Result<(), String> {
    let all = &description.architectures;
    let most = all.iter().map(|d| d.declaration.model_types.len()).fold(all.len(), usize::max);
    if most > MAX_NAMES {
        return Err(format!("names {most} architectures or model types, expected at most {MAX_NAMES}: {REBUILD}"));
    }
    let long = |d: &Described| {
        let Described { declaration, package, version } = d;
        let mut names = declaration.model_types.iter().chain([&declaration.name, package, version]);
        names.find(|name| name.len() > MAX_NAME).map(String::len)
    };
    if let Some(found) = all.iter().find_map(long) {
        return Err(format!("has a name of {found} bytes, expected at most {MAX_NAME}: {REBUILD}"));
    }
    let mut names = BTreeSet::new();
    if let Some(d) = description.architectures.iter().find(|d| !names.insert(&d.declaration.name)) {
        let name = &d.declaration.name;
        return Err(format!("holds two architectures of the name `{name}`: give one another name"));
    }
    if names.is_empty() {
        Err("registers no architecture: its source needs a line `register!(..);`".into())
    } else {
        Ok(())
    }
}

/// Reads a file that only its owner and group can change.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let target = path.canonicalize().map_err(unreadable)?;
    for directory in [path, &target].into_iter().filter_map(|p| p.parent()) {
        // A bare file name has the empty path as its parent.
        refuse_world_writable(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })?;
    }
    refuse_world_writable(&target)?;
    let metadata = fs::metadata(&target).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a regular file: take it away".into());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(&target).map_err(unreadable)?;
    // A file that grows meanwhile is not read to its end either.
    if metadata.len() > MAX_LEN || file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(unreadable)? as u64 > MAX_LEN
    {
        return Err(format!("is longer than {} MiB, no plugin is: take it away, or strip it", MAX_LEN >> 20));
    }
    Ok(bytes)
}

/// What the system says of a file or directory, and what to do.
pub fn unreadable(e: std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::NotFound => format!("{e}: mend the path, or take the link to nothing away"),
        std::io::ErrorKind::PermissionDenied => format!("{e}: give this user the right to read it (chmod u+r)"),
        std::io::ErrorKind::NotADirectory => format!("{e}: name the directory that the library is in"),
        _ => format!("{e}: copy it here again, or take it away"),
    }
}

/// Refuses a file or directory in which every user of the machine could plant code.
pub fn refuse_world_writable(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(unreadable)?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o002 != 0 {
        return Err(format!("every user can change {0}: take that right away (chmod o-w {0})", path.display()));
    }
    let _ = metadata;
    Ok(())
}

/// Loads a private copy, so that what was checked is what runs, whatever becomes of the file: one that
/// is cut off or overwritten while it is mapped ends the process with SIGBUS. The name is new each time
/// as well; a system gives the old code again for a name that it has loaded before.
#[cfg(unix)]
fn load(_: &Path, bytes: &[u8]) -> Result<PluginRef, String> {
    let copy = private_copy(bytes).map_err(|e| format!("cannot be copied for loading: {e}"))?;
    root_module(&copy)
    // The copy's name goes away here, its content when the process ends.
}

/// Loads the file itself: Windows locks it for as long as it is loaded.
#[cfg(not(unix))]
fn load(path: &Path, _: &[u8]) -> Result<PluginRef, String> {
    root_module(&path.canonicalize().map_err(unreadable)?)
}

/// In the user's cache directory first: `/tmp` is often mounted so that no code can be loaded from it.
#[cfg(unix)]
fn private_copy(bytes: &[u8]) -> std::io::Result<tempfile::TempPath> {
    let write = |directory: &Path| {
        fs::create_dir_all(directory)?;
        let mut file = tempfile::Builder::new().suffix(std::env::consts::DLL_SUFFIX).tempfile_in(directory)?;
        std::io::Write::write_all(&mut file, bytes)?;
        Ok(file.into_temp_path())
    };
    let cache = directories::ProjectDirs::from("", "", "tamarack").map(|d| d.cache_dir().join("plugins"));
    cache.and_then(|directory| write(&directory).ok()).map_or_else(|| write(&std::env::temp_dir()), Ok)
}

/// By its header, and never by `RootModule::load_from_file`, which gives the first library again for
/// every later path.
fn root_module(path: &Path) -> Result<PluginRef, String> {
    let module = lib_header_from_path(path).and_then(|header| header.init_root_module());
    module.map_err(|e| match e {
        LibraryError::OpenError { err, .. } => {
            let reason = err.to_string().replace(&format!("{}: ", path.display()), "");
            format!("the system cannot load it: {reason}: build the plugin on this machine")
        }
        other => readable(&other.to_string()),
    })
}

/// abi_stable prints both layouts in full, tens of kilobytes; people need its `Error:` blocks.
fn readable(message: &str) -> String {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let blocks = message.split("\n\n").filter_map(|block| block.trim_start().strip_prefix("Error:"));
    let errors: Vec<String> = blocks.take(4).map(squeezed).collect();
    let text = if errors.is_empty() { squeezed(message) } else { errors.join("; ") };
    format!("does not fit this host: {}: {REBUILD}", text.chars().take(600).collect::<String>())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use abi_stable::{
        StableAbi,
        abi_stability::abi_checking::check_layout_compatibility,
        prefix_type::PrefixTypeTrait,
        std_types::{RStr, RString},
    };
    use tamarack_abi::Plugin;

    type Describe = extern "C" fn() -> RVec<u8>;
    type Call = extern "C" fn(RStr<'_>, RSlice<'_, u8>) -> RResult<RVec<u8>, RString>;

    /// A library without a file.
    pub fn fake(describe: Describe, call: Call) -> Library {
        Library(Plugin { describe, call }.leak_into_prefix())
    }

    extern "C" fn no_call(_: RStr<'_>, _: RSlice<'_, u8>) -> RResult<RVec<u8>, RString> {
        RResult::RErr("no call".into())
    }

    macro_rules! described {
        ($text:expr) => {{
            extern "C" fn describe() -> RVec<u8> {
                $text.as_bytes().to_vec().into()
            }
            fake(describe, no_call).describe()
        }};
    }

    #[test]
    fn descriptions_are_checked() {
        const ONE: &str = r#"{"declaration":{"name":"a","model_types":["a"]},"package":"p","version":"1"}"#;
        let host = format!("this host has api {}.{}", API.0, API.1);
        for (found, expected) in [
            (described!(""), "panicked in Architecture::declaration"),
            (described!("{"), "its description is not JSON"),
            (described!("{}"), "its description names no api version"),
            (described!(r#"{"api":[2,3],"anything":1}"#), &format!("was built for api 2.3, {host}: update the host")),
            (described!(r#"{"api":[0,9]}"#), &format!("was built for api 0.9, {host}: rebuild the plugin")),
            (described!(r#"{"api":[1,0],"architectures":[{}]}"#), "its description does not fit: missing field"),
            (described!(r#"{"api":[1,0],"architectures":[]}"#), "registers no architecture"),
            (
                described!(format!(r#"{{"api":[1,0],"architectures":[{ONE},{ONE}]}}"#)),
                "holds two architectures of the name `a`",
            ),
            (
                described!(format!(
                    r#"{{"api":[1,0],"architectures":[{}]}}"#,
                    ONE.replace("\"p\"", &format!("{:?}", "p".repeat(300)))
                )),
                "has a name of 300 bytes, expected at most 200",
            ),
            (
                described!(format!(r#"{{"api":[1,0],"architectures":[{}]}}"#, vec![ONE; 1001].join(","))),
                "names 1001 architectures or model types, expected at most 1000",
            ),
            (described!("[".repeat(1000)), "its reply to `describe`: expected at most 64 levels"),
        ] {
            let e = found.unwrap_err();
            assert!(e.starts_with(expected), "{e}");
        }
        let newer = described!(format!(r#"{{"api":[1,99],"architectures":[{ONE}],"later":0}}"#)).unwrap();
        assert_eq!((newer.api, newer.architectures.len()), ((1, 99), 1));
    }

    #[test]
    fn layout_errors_are_short() {
        macro_rules! layout {
            ($field:ty) => {{
                #[repr(C)]
                #[derive(StableAbi)]
                struct Plugin {
                    describe: $field,
                }
                <Plugin as StableAbi>::LAYOUT
            }};
        }
        let (ours, theirs) = (layout!(u32), layout!(u64));
        let long = check_layout_compatibility(ours, theirs).unwrap_err().to_string();
        let short = readable(&long);
        assert!(short.len() <= 700 && short.len() < long.len(), "{} of {}", short.len(), long.len());
        assert!(short.starts_with("does not fit this host: "), "{short}");
        for part in ["Expected:", "Found:", "u32", "u64"] {
            assert!(short.contains(part), "{part} is missing: {short}");
        }
        let other = readable("\nother \n  reason\n");
        assert_eq!(other, format!("does not fit this host: other reason: {REBUILD}"));
    }
}
