//! What a host sees when somebody has changed the frozen crate: the same names, another signature.
#![allow(non_local_definitions)] // from abi_stable's derive

use abi_stable::{
    StableAbi, export_root_module, library::RootModule, prefix_type::PrefixTypeTrait, sabi_types::VersionStrings,
    std_types::RVec,
};

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRef)))]
#[sabi(missing_field(panic))]
pub struct Plugin {
    pub describe: extern "C" fn(u64) -> RVec<u8>,
    #[sabi(last_prefix_field)]
    pub call: extern "C" fn() -> RVec<u8>,
}

impl RootModule for PluginRef {
    abi_stable::declare_root_module_statics! {PluginRef}
    const BASE_NAME: &'static str = "tamarack_plugin";
    const NAME: &'static str = "tamarack plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

extern "C" fn describe(_: u64) -> RVec<u8> {
    RVec::new()
}

extern "C" fn call() -> RVec<u8> {
    RVec::new()
}

#[export_root_module]
fn root_module() -> PluginRef {
    Plugin { describe, call }.leak_into_prefix()
}
