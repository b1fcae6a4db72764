//! Before a plugin's WGSL reaches any driver: it is parsed and validated, and must bind exactly what its op
//! declares and take no more memory than any device has.
//!
//! naga calls itself for every level of what it reads. The nesting of the text is therefore bounded first, and what is
//! left runs on a thread with room for it and for so long at most.

use super::{depth, source};
use crate::plugins::{TIME_LIMIT, cut, within};
use naga::{
    AddressSpace, GlobalVariable, Handle, Module, Scalar, ShaderStage, StorageAccess, Type, TypeInner,
    proc::Layouter,
    valid::{Capabilities, ValidationFlags, Validator},
};
use tamarack_api::CustomOp;

/// Invocations in a workgroup that every device runs.
const MAX_INVOCATIONS: u64 = 256;
/// Bytes of workgroup memory that every device has.
const MAX_WORKGROUP: u64 = 16 << 10;
/// Bytes of variables that one invocation has for itself.
const MAX_PRIVATE: u64 = 4 << 10;

/// Levels of arrays and structs within each other. Aliases make more of them than the text is nested.
const MAX_TYPE_DEPTH: usize = 64;
/// The stack of the thread that validates. Only what is used of it becomes memory.
const STACK: usize = 64 << 20;

/// Checks the WGSL of one op.
///
/// # Errors
/// What is wrong, with line and column where naga knows it.
pub fn validate(op: &CustomOp) -> Result<(), String> {
    validate_each(std::slice::from_ref(op)).map_err(|(_, e)| e)
}

/// Checks the WGSL of ops, all of them within [`TIME_LIMIT`].
///
/// # Errors
/// Which op is wrong, if one is, and what is.
pub fn validate_each(ops: &[CustomOp]) -> Result<(), (Option<usize>, String)> {
    if ops.is_empty() {
        return Ok(());
    }
    for (i, op) in ops.iter().enumerate() {
        depth::check(&source(op)).map_err(|e| (Some(i), e))?;
    }
    let ops = ops.to_vec();
    let first_wrong = move || Ok(ops.iter().enumerate().find_map(|(i, op)| Some((i, check(op).err()?))));
    match within(TIME_LIMIT, STACK, "validating its WGSL", first_wrong) {
        Ok(None) => Ok(()),
        Ok(Some((i, e))) => Err((Some(i), cut(&e))),
        Err(e) => Err((None, e)),
    }
}

/// Checks the WGSL of one op, whose nesting is bounded.
fn check(op: &CustomOp) -> Result<(), String> {
    let source = source(op);
    let at = |location: Option<naga::SourceLocation>| match location {
        Some(l) => format!("WGSL {}:{}: ", l.line_number, l.line_position),
        None => "WGSL: ".to_owned(),
    };
    let module = naga::front::wgsl::parse_str(&source)
        .map_err(|e| format!("{}{}", at(e.location(&source)), e.message().replace('\n', " ")))?;
    check_types(&module)?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    validator.validate(&module).map_err(|e| format!("{}{}", at(e.location(&source)), causes(e.as_inner())))?;
    check_entry(&module)?;
    check_bindings(op, &module)?;
    check_memory(&module)
}

/// An error and what it is about, innermost last.
fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |e| e.source());
    chain.map(|e| e.to_string().replace('\n', " ")).collect::<Vec<_>>().join(": ")
}

/// The types of an arena come after those that they are made of.
fn check_types(module: &Module) -> Result<(), String> {
    let mut depths: Vec<usize> = Vec::with_capacity(module.types.len());
    for (_, ty) in module.types.iter() {
        let of = |ty: &Handle<Type>| depths[ty.index()];
        let inner = match &ty.inner {
            TypeInner::Array { base, .. } | TypeInner::BindingArray { base, .. } | TypeInner::Pointer { base, .. } => {
                of(base)
            }
            TypeInner::Struct { members, .. } => members.iter().map(|m| of(&m.ty)).max().unwrap_or(0),
            _ => 0,
        };
        if inner >= MAX_TYPE_DEPTH {
            return Err(format!("WGSL: arrays and structs are nested more than {MAX_TYPE_DEPTH} levels deep"));
        }
        depths.push(inner + 1);
    }
    Ok(())
}

fn check_entry(module: &Module) -> Result<(), String> {
    let [entry] = &module.entry_points[..] else {
        return Err(format!("expected one entry point, `main`, found {}", module.entry_points.len()));
    };
    if entry.name != "main" || entry.stage != ShaderStage::Compute {
        return Err(format!("expected the compute entry point `main`, found `{}`", entry.name));
    }
    if let Some((_, o)) = module.overrides.iter().next() {
        let name = o.name.as_deref().unwrap_or("?");
        return Err(format!("`override {name}`: nothing sets it, use a constant of the op"));
    }
    let invocations: u64 = entry.workgroup_size.iter().map(|n| u64::from(*n)).product();
    if invocations > MAX_INVOCATIONS {
        return Err(format!("a workgroup of {invocations} invocations, every device runs {MAX_INVOCATIONS}"));
    }
    Ok(())
}

/// The globals that are bound must be those that the op declares, in their order.
fn check_bindings(op: &CustomOp, module: &Module) -> Result<(), String> {
    let reads = op.inputs + op.weights;
    let mut found = vec![false; reads + 1];
    for (_, global) in module.global_variables.iter() {
        let name = global.name.as_deref().unwrap_or("?");
        let Some(binding) = &global.binding else { continue };
        let (group, i) = (binding.group, binding.binding as usize);
        if group != 0 || i > reads {
            return Err(format!("`{name}` is bound to {group}.{i}, the op declares 0.0 to 0.{reads}"));
        }
        if !is_array_of_f32(module, global) {
            return Err(format!("`{name}` at binding {i}: expected `array<f32>` in the space `storage`"));
        }
        let AddressSpace::Storage { access } = global.space else { continue };
        let (wanted, mode) = if i < reads {
            (StorageAccess::LOAD, "read")
        } else {
            (StorageAccess::LOAD | StorageAccess::STORE, "read_write")
        };
        if access != wanted {
            return Err(format!("`{name}` at binding {i}: expected `var<storage, {mode}>`"));
        }
        found[i] = true;
    }
    match found.iter().position(|f| !f) {
        Some(i) if i == reads => Err(format!("nothing is bound to {i}, the result")),
        Some(i) if i < op.inputs => Err(format!("nothing is bound to {i}, an input")),
        Some(i) => Err(format!("nothing is bound to {i}, a weight")),
        None => Ok(()),
    }
}

fn is_array_of_f32(module: &Module, global: &GlobalVariable) -> bool {
    let is_f32 = |ty| module.types[ty].inner == TypeInner::Scalar(Scalar::F32);
    let storage = matches!(global.space, AddressSpace::Storage { .. });
    let array = &module.types[global.ty].inner;
    storage && matches!(array, TypeInner::Array { base, size: naga::ArraySize::Dynamic, .. } if is_f32(*base))
}

fn check_memory(module: &Module) -> Result<(), String> {
    let mut layout = Layouter::default();
    layout.update(module.to_ctx()).map_err(|e| format!("WGSL: {e}"))?;
    let bytes = |space: AddressSpace| {
        let globals = module.global_variables.iter().filter(move |(_, g)| g.space == space);
        globals.map(|(_, g)| u64::from(layout[g.ty].size)).sum::<u64>()
    };
    let functions = module.functions.iter().map(|(_, f)| f).chain(module.entry_points.iter().map(|e| &e.function));
    let locals = functions.flat_map(|f| f.local_variables.iter()).map(|(_, l)| u64::from(layout[l.ty].size));
    let (shared, own) = (bytes(AddressSpace::WorkGroup), bytes(AddressSpace::Private) + locals.sum::<u64>());
    if shared > MAX_WORKGROUP {
        return Err(format!("{shared} bytes of workgroup memory, every device has {MAX_WORKGROUP}"));
    }
    if own > MAX_PRIVATE {
        return Err(format!("{own} bytes of variables for each invocation, room is for {MAX_PRIVATE}"));
    }
    Ok(())
}
