//! Links what the manifest lists: a crate that is only listed there is dropped by the linker with its registrations; a
//! `use` keeps it.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=Cargo.toml");
    let manifest = fs::read_to_string("Cargo.toml").expect("this crate's manifest");
    let plugins: Vec<String> = manifest
        .lines()
        .filter_map(|line| line.split_once(" = { path = \"../"))
        .map(|(package, _)| package.replace('-', "_"))
        .collect();
    let uses: String = plugins.iter().map(|plugin| format!("pub use {plugin} as _;\n")).collect();
    let linked = format!(
        "/// How many plugins are linked. A program that uses this crate for its registrations alone mentions it, so that\n\
         /// the crate itself is kept.\n\
         pub const LINKED: usize = {};\n",
        plugins.len()
    );
    let out = env::var_os("OUT_DIR").expect("cargo names a folder");
    fs::write(Path::new(&out).join("plugins.rs"), uses + &linked).expect("the folder can be written");
}
