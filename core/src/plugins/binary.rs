//! What a library's headers say of it, read before the system loads it: a file that is cut off or made
//! for another machine would end the process with a signal (SIGBUS, SIGSEGV) instead of an error.

use abi_stable::library::ROOT_MODULE_LOADER_NAME;
use object::read::macho::{FatArch, MachOFatFile32, MachOFatFile64};
use object::{Architecture, BinaryFormat, FileKind, Object, ObjectKind, ObjectSection, ObjectSegment};

/// Checks that these bytes are a whole dynamic library for this process that exports a plugin's root
/// module, or says what they are instead. Contents are not checked, only headers.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let kind = FileKind::parse(bytes).map_err(|_| "is not a dynamic library".to_owned())?;
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
    format!("is damaged or cut off: {e}")
}

/// This machine's part of a universal library.
fn slice<'a, A: FatArch>(arches: &[A], bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let ours = arches.iter().find(|a| Some(a.architecture()) == architecture());
    ours.ok_or("holds no code for this machine")?.data(bytes).map_err(damaged)
}

fn check_machine(file: &object::File<'_>) -> Result<(), String> {
    if file.format() != format() {
        return Err(format!("is a {:?} file, this system loads {:?}", file.format(), format()));
    }
    if let Some(ours) = architecture().filter(|ours| *ours != file.architecture()) {
        return Err(format!("is for {:?}, this program for {ours:?}", file.architecture()));
    }
    if file.is_little_endian() != cfg!(target_endian = "little") {
        return Err("has the wrong byte order".into());
    }
    match file.kind() {
        ObjectKind::Dynamic => Ok(()),
        kind => Err(format!("is not a dynamic library, but of kind {kind:?}")),
    }
}

/// Whether the file is as long as its headers say.
fn check_extent(file: &object::File<'_>, len: u64) -> Result<(), String> {
    let segments = file.segments().map(|s| s.file_range());
    let sections = file.sections().filter_map(|s| s.file_range());
    let end = segments.chain(sections).map(|(start, size)| start.saturating_add(size)).max().unwrap_or(0);
    if end > len {
        return Err(format!("is cut off: its headers promise {end} bytes, it has {len}"));
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
    Err("is a library, but no Tamarack plugin: it exports no root module".into())
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
