//! Every kernel, in every variant, is WGSL that naga accepts and can say in SPIR-V, Metal and HLSL.

mod experts;
mod matmul;
mod rows;

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::path::{Path, PathBuf};
use tamarack_kernels::{Access, Caps, Kernel, bandwidth};

/// All that a device may have.
const ALL: Caps = Caps {
    subgroups: Some((32, 32)),
    f16: true,
    workgroup_memory: 48 << 10,
    workgroup_size: 1024,
    binding_size: 2 << 30,
};

/// What WebGPU promises, and no more.
pub const LEAST: Caps =
    Caps { subgroups: None, f16: false, workgroup_memory: 16 << 10, workgroup_size: 256, binding_size: 128 << 20 };

/// The most and the least able device, and between them one with subgroups of any size, as some
/// drivers of integrated GPUs have, and one with half floats alone.
pub const DEVICES: [Caps; 4] = [ALL, Caps { subgroups: Some((4, 128)), ..LEAST }, Caps { f16: true, ..LEAST }, LEAST];

/// Every kernel family adds its list here, with the caps each kernel was made for.
fn kernels() -> Vec<(Caps, Kernel)> {
    let bandwidth = DEVICES.map(|caps| (caps, bandwidth::read(1 << 30, &caps)));
    [experts::kernels(), matmul::kernels(), rows::kernels(), bandwidth.into()].concat()
}

#[test]
fn every_kernel_converts_to_every_language() {
    for (caps, kernel) in kernels() {
        if let Err(e) = convert(&caps, &kernel) {
            panic!("{}: {e}\n{}", kernel.name, kernel.source);
        }
    }
}

/// Every template is in some kernel of the lists above: what is added must be listed, too.
#[test]
fn no_template_is_left_out() {
    let kernels = kernels();
    let said = |line: &str| kernels.iter().any(|(_, kernel)| kernel.source.contains(line));
    for path in templates(&Path::new(env!("CARGO_MANIFEST_DIR")).join("wgsl")) {
        let text = std::fs::read_to_string(&path).expect("text");
        let lines = text.lines().map(str::trim).filter(|line| !line.contains("{{") && !line.starts_with("//"));
        let line = lines.max_by_key(|line| line.len()).unwrap_or_default();
        assert!(said(line), "{}: no kernel has its line `{line}`", path.display());
    }
}

/// All files in a folder and those below it.
fn templates(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { templates(&path) } else { vec![path] }).collect()
}

fn convert(caps: &Caps, kernel: &Kernel) -> Result<(), String> {
    if kernel.source.contains("{{") {
        return Err("the template has places that nothing fills".into());
    }
    let module = naga::front::wgsl::parse_str(&kernel.source).map_err(|e| e.emit_to_string(&kernel.source))?;
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, caps.subgroups.is_some());
    capabilities.set(Capabilities::SHADER_FLOAT16, caps.f16);
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| e.emit_to_string(&kernel.source))?;
    check_bindings(&module, kernel)?;
    check_limits(&module, caps)?;

    spv::write_vec(&module, &info, &spv::Options { lang_version: (1, 3), ..Default::default() }, None)
        .map_err(|e| format!("SPIR-V: {e}"))?;
    let options = msl::Options { lang_version: (2, 4), ..Default::default() };
    msl::write_string(&module, &info, &options, &Default::default()).map_err(|e| format!("MSL: {e}"))?;
    // Shader model 6.0 is the least that has subgroups.
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, ..Default::default() };
    let pipeline = hlsl::PipelineOptions::default();
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None).map_err(|e| format!("HLSL: {e}"))?;
    Ok(())
}

/// The bindings that the shader declares are those that the host is told of.
fn check_bindings(module: &naga::Module, kernel: &Kernel) -> Result<(), String> {
    let mut declared: Vec<(u32, Access)> = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        if let (Some(at), naga::AddressSpace::Storage { access }) = (&variable.binding, variable.space) {
            let written = access.contains(naga::StorageAccess::STORE);
            declared.push((at.binding, if written { Access::ReadWrite } else { Access::Read }));
        }
    }
    declared.sort_by_key(|(binding, _)| *binding);
    let listed: Vec<_> = kernel.bindings.iter().enumerate().map(|(i, access)| (i as u32, *access)).collect();
    if declared == listed { Ok(()) } else { Err(format!("declares {declared:?}, lists {listed:?}")) }
}

/// Workgroup memory and workgroup size are what the device has.
fn check_limits(module: &naga::Module, caps: &Caps) -> Result<(), String> {
    let sizes = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    let memory: u32 = sizes.map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx())).sum();
    let invocations: u32 = module.entry_points.iter().map(|e| e.workgroup_size.iter().product::<u32>()).sum();
    match memory <= caps.workgroup_memory && invocations <= caps.workgroup_size {
        true => Ok(()),
        false => Err(format!("{memory} bytes of workgroup memory, {invocations} invocations")),
    }
}
