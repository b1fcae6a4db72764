//! What a library's headers say of it, read before the system loads it: a file that is cut off or made
//! for another machine would end the process with a signal (SIGBUS, SIGSEGV) instead of an error.

use abi_stable::library::ROOT_MODULE_LOADER_NAME;
use object::read::macho::{FatArch, MachOFatFile32, MachOFatFile64};
use object::{Architecture, BinaryFormat, FileKind, Object, ObjectKind, ObjectSection, ObjectSegment};

/// Checks that these bytes are a whole dynamic library for this process that exports a plugin's root
/// module, or says what they are instead. Contents are not checked, only headers.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let kind = FileKind::parse(bytes)
        .map_err(|_| "is not a dynamic library: take it away, or copy it here again".to_owned())?;
    let bytes = match kind {
        FileKind::MachOFat32 => slice(MachOFatFile32::parse(bytes).map_err(damaged)?.arches(), bytes)?,
        FileKind::MachOFat64 => slice(MachOFatFile64::parse(bytes).map_err(damaged)?.arches(), bytes)?,
        _ => bytes,
    };
    let file = object::File::parse(bytes).map_err(damaged)?;
    check_machine(&file)?;
    check_extent(&file, bytes.len() as u64)?;
    check_export(&file)
}

fn damaged(e: object::Error) -> String {
    format!("is damaged or cut off: {e}: copy it here again")
}

/// This machine's part of a universal library.
fn slice<'a, A: FatArch>(arches: &[A], bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let ours = arches.iter().find(|a| Some(a.architecture()) == architecture());
    ours.ok_or("holds no code for this machine: build the plugin on it")?.data(bytes).map_err(damaged)
}

fn check_machine(file: &object::File<'_>) -> Result<(), String> {
    if file.format() != format() {
        let (found, ours) = (file.format(), format());
        return Err(format!("is a {found:?} file, this system loads {ours:?}: build the plugin on this system"));
    }
    if let Some(ours) = architecture().filter(|ours| *ours != file.architecture()) {
        let theirs = file.architecture();
        return Err(format!("is for {theirs:?}, this program for {ours:?}: build the plugin for {ours:?}"));
    }
    if file.is_little_endian() != cfg!(target_endian = "little") {
        return Err("has the wrong byte order: build the plugin on this machine".into());
    }
    match file.kind() {
        ObjectKind::Dynamic => Ok(()),
        kind => Err(format!(
            "is not a dynamic library, but of kind {kind:?}: build the plugin with crate-type = [\"cdylib\"]"
        )),
    }
}

/// Whether the file is as long as its headers say.
fn check_extent(file: &object::File<'_>, len: u64) -> Result<(), String> {
    let segments = file.segments().map(|s| s.file_range());
    let sections = file.sections().filter_map(|s| s.file_range());
    let end = segments.chain(sections).map(|(start, size)| start.saturating_add(size)).max().unwrap_or(0);
    if end > len {
        return Err(format!("is cut off: its headers promise {end} bytes, it has {len}: copy it here again"));
    }
    Ok(())
}

/// Loading runs a library's initialisers, so others' libraries are not loaded only to find this out.
fn check_export(file: &object::File<'_>) -> Result<(), String> {
    let exports = file.exports().map_err(damaged)?;
    for export in exports {
        // Mach-O puts an underscore before every C name.
        if let object::NameOrOrdinal::Name(name) = export.map_err(damaged)?.name()
            && name.ends_with(ROOT_MODULE_LOADER_NAME.as_bytes())
        {
            return Ok(());
        }
    }
    Err("is a library, but no Tamarack plugin: it exports no root module: take it away, or register an architecture in it"
        .into())
}

/// What a plugin that only describes never calls: networks, processes, threads, other libraries, changes to files.
const FOREIGN: &[&str] = &[
    "socket",
    "connect",
    "bind",
    "listen",
    "getaddrinfo",
    "fork",
    "vfork",
    "execve",
    "execv",
    "execvp",
    "posix_spawn",
    "posix_spawnp",
    "system",
    "popen",
    "pthread_create",
    "dlopen",
    "unlink",
    "unlinkat",
    "rename",
    "mkdir",
    "rmdir",
    "truncate",
    "ftruncate64",
    "kill",
    "WSAStartup",
    "CreateProcessW",
    "CreateThread",
    "LoadLibraryExW",
    "DeleteFileW",
];

/// The functions that a library takes from the system and that no plugin needs.
pub fn foreign_imports(bytes: &[u8]) -> Result<Vec<String>, String> {
    let file = object::File::parse(bytes).map_err(damaged)?;
    let imports = file.imports().map_err(damaged)?;
    let names = imports.into_iter().filter_map(|import| match import.ok()?.name() {
        object::NameOrOrdinal::Name(name) => Some(String::from_utf8_lossy(name).trim_start_matches('_').to_owned()),
        _ => None,
    });
    let mut foreign: Vec<String> = names.filter(|name| FOREIGN.contains(&name.as_str())).collect();
    foreign.sort();
    foreign.dedup();
    Ok(foreign)
}

const fn format() -> BinaryFormat {
    if cfg!(windows) {
        BinaryFormat::Pe
    } else if cfg!(target_vendor = "apple") {
        BinaryFormat::MachO
    } else {
        BinaryFormat::Elf
    }
}

/// This process's machine type, where it is one of those that GPUs are found in.
fn architecture() -> Option<Architecture> {
    match std::env::consts::ARCH {
        "x86_64" if cfg!(target_pointer_width = "64") => Some(Architecture::X86_64),
        "x86" => Some(Architecture::I386),
        "aarch64" => Some(Architecture::Aarch64),
        "arm" => Some(Architecture::Arm),
        "riscv64" => Some(Architecture::Riscv64),
        "loongarch64" => Some(Architecture::LoongArch64),
        "powerpc64" => Some(Architecture::PowerPc64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mach-O's fat header, big-endian: magic, count, then type, subtype, offset, size and alignment of each.
    fn universal(cpu: u32, offset: u32, size: u32) -> Vec<u8> {
        let words = [0xcafe_babe, 1, cpu, 3, offset, size, 0];
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        bytes.extend(b"a part of a universal library");
        bytes
    }

    #[test]
    fn a_universal_library_is_judged_by_its_part_for_this_machine() {
        let Some(cpu) = (match std::env::consts::ARCH {
            "x86_64" => Some(0x0100_0007),
            "aarch64" => Some(0x0100_000c),
            _ => None,
        }) else {
            return;
        };
        for (bytes, expected) in [
            (universal(18, 28, 29), "holds no code for this machine"),
            (universal(cpu, 28, 30), "is damaged or cut off: Invalid fat arch offset or size"),
            (universal(cpu, 28, 29), "is damaged or cut off: "),
        ] {
            let e = check(&bytes).unwrap_err();
            assert!(e.starts_with(expected), "{e}");
        }
    }

    #[test]
    fn a_program_is_no_plugin() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let e = check(&program).unwrap_err();
        assert!(e.contains("no Tamarack plugin") || e.starts_with("is not a dynamic library"), "{e}");
    }
}
