//! The boundary between a host and a plugin that was built apart from it: one root module of two
//! functions over bytes. It is frozen. What evolves is the encoding of the bytes, which
//! `tamarack-api` versions by name; nothing is ever added here.
#![allow(non_local_definitions)] // from abi_stable's derive

use abi_stable::{
    StableAbi,
    library::RootModule,
    package_version_strings,
    sabi_types::VersionStrings,
    std_types::{RResult, RSlice, RStr, RString, RVec},
};

/// What every plugin library exports. Both functions catch their own panics.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRef)))]
#[sabi(missing_field(panic))]
pub struct Plugin {
    /// The declarations of every architecture in the library, encoded by `tamarack-api`.
    pub describe: extern "C" fn() -> RVec<u8>,
    /// Runs the entry point of this name on an encoded request, and returns an encoded reply or
    /// a message for people.
    #[sabi(last_prefix_field)]
    pub call: extern "C" fn(RStr<'_>, RSlice<'_, u8>) -> RResult<RVec<u8>, RString>,
}

impl RootModule for PluginRef {
    abi_stable::declare_root_module_statics! {PluginRef}
    const BASE_NAME: &'static str = "tamarack_plugin";
    const NAME: &'static str = "tamarack plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
