//! Every quantizer's layout, against what its own dequantizer says: see tests/goldens/foreign.py and foreign_zeros.py.

use serde_json::{Value, json};

use super::foreign::Config;
use super::{Number, Part, foreign, survives_f16};
use crate::checkpoint::mapping::Mapping;
use crate::checkpoint::tensor::Tensor;
use crate::checkpoint::{safetensors, unpack};

fn goldens() -> safetensors::Parts {
    let read = |name: &str, bytes: &[u8]| safetensors::parts(&Mapping::from_bytes(name, bytes.to_vec())).unwrap();
    let mut all = read("foreign", include_bytes!("../../../../tests/goldens/foreign.safetensors"));
    all.append(&mut read("foreign_zeros", include_bytes!("../../../../tests/goldens/foreign_zeros.safetensors")));
    all
}

/// Whether a part is of a case, and not of one whose name goes on.
fn belongs(name: &str, case: &str) -> bool {
    name.strip_prefix(case).is_some_and(|rest| rest.starts_with('.') || rest == "_blocks" || rest == "_scales")
}

/// The tensor of a case, and its values.
fn load(case: &str, config: Value) -> Result<(Tensor, Vec<f32>), String> {
    let mut parts: safetensors::Parts = goldens();
    parts.retain(|name, _| belongs(name, case));
    let values: Part = parts.remove(&format!("{case}.values")).unwrap();
    let config = json!({ "quantization_config": config });
    let mut tensors = foreign::join(Config::of(&config), &mut parts)?;
    assert_eq!(tensors.len(), 1, "{case}: left {:?}", parts.keys());
    Ok((tensors.remove(0), Number::F32.all(&values.bytes)))
}

/// Whoever says of a GPTQ file that zeros are stored as they are, or one less.
fn zeros() -> Vec<(Value, &'static str)> {
    let gptq = |key: &str, format: &str| json!({ "quant_method": "gptq", key: format });
    let round = |method: &str, packing: &str| json!({ "quant_method": method, "packing_format": packing });
    vec![
        (gptq("checkpoint_format", "gptq"), "one_less"),
        (gptq("format", "gptq"), "one_less"),
        (gptq("desc", "none"), "one_less"),
        (json!({ "quant_method": "gptq", "checkpoint_format": "gptq", "sym": true }), "one_less"),
        (gptq("checkpoint_format", "gptq_v2"), "as_it_is"),
        (gptq("checkpoint_format", "GPTQ_V2"), "as_it_is"),
        (gptq("format", "gptq_v2"), "as_it_is"),
        // The older key wins over the newer one, which some writers use for something else.
        (json!({ "quant_method": "gptq", "checkpoint_format": "gptq_v2", "format": "gptq" }), "as_it_is"),
        (round("auto-round", "auto_round"), "as_it_is"),
        (round("auto_round", "auto_round"), "as_it_is"),
        (round("intel/auto-round", "auto_round"), "as_it_is"),
        (round("inc", "auto_round"), "as_it_is"),
        (round("auto-round", "auto_round:gptqmodel"), "as_it_is"),
        (round("auto-round", "auto_round:auto_gptq"), "one_less"),
        (round("intel/auto-round", "auto_round:gptq"), "one_less"),
        (round("auto-round", "auto"), "one_less"),
        (json!({ "quant_method": "auto-round" }), "one_less"),
        // `sym` fixes the zero, whatever the format is called.
        (json!({ "quant_method": "gptq", "sym": true }), "middle"),
        (json!({ "quant_method": "gptq", "sym": true, "checkpoint_format": "gptq_v2" }), "middle"),
        (json!({ "quant_method": "gptq", "sym": false, "checkpoint_format": "gptq_v2" }), "middle"),
    ]
}

#[test]
fn zeros_of_gptq_and_auto_round_are_what_their_configuration_says() {
    for (mut config, stored) in zeros() {
        for bits in [2, 3, 4, 8] {
            config["bits"] = bits.into();
            config["group_size"] = 64.into();
            let case = format!("gptq_{stored}_{bits}");
            let (tensor, want) = load(&case, config.clone()).unwrap();
            assert_rows(&case, &tensor, &want);
        }
    }
    let error = load("gptq_as_it_is_4", json!({ "quant_method": "auto-round", "packing_format": "auto_round:new" }));
    let error = error.map(|_| ()).unwrap_err();
    assert!(error.contains("packing `auto_round:new` is not supported"), "{error}");
}

/// Rows as they are decoded, but for the order of products.
fn assert_rows(case: &str, tensor: &Tensor, want: &[f32]) {
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let mut row = vec![0.0; tensor.cols()];
    for (i, want) in want.chunks(tensor.cols()).enumerate() {
        tensor.row(i, &mut row);
        for (found, want) in row.iter().zip(want) {
            assert!((found - want).abs() <= 4.0 * f32::EPSILON * largest, "{case}: {found} for {want}");
        }
    }
}

#[test]
fn scales_of_activations_and_of_the_cache_are_left_out() {
    for (name, ignored) in [
        ("m.layers.0.self_attn.k_proj.k_scale", true),
        ("m.self_attn.v_proj.output_scale", true),
        ("m.self_attn.kv_scale", true),
        ("m.self_attn.q_scale", true),
        ("m.self_attn.prob_output_scale", true),
        ("m.mlp.up_proj.input_scale", true),
        ("m.mlp.up_proj.input_scale_ub", true),
        ("m.mlp.up_proj.input_zero_point", true),
        ("m.mlp.up_proj.input_global_scale", true),
        ("m.self_attn.k_zero_point", true),
        ("m.mlp.up_proj.activation_scale", true),
        ("m.mlp.up_proj.input_quantizer._amax", true),
        ("m.self_attn.k_bmm_quantizer._amax", true),
        ("m.mlp.up_proj.weight_scale", false),
        ("m.mlp.up_proj.weight_zero_point", false),
        ("m.mlp.up_proj.scale", false),
        ("m.mlp.up_proj.weight", false),
        ("m.logit_scale", false),
        ("m.input_quantizer", false),
    ] {
        let kept = |config: Value| {
            let mut parts = safetensors::Parts::new();
            let part = goldens().remove("ct_fp8.weight_scale").unwrap();
            parts.insert(name.to_owned(), part);
            foreign::join(Config::of(&config), &mut parts).unwrap();
            parts.len() == 1
        };
        assert_eq!(kept(json!({ "quantization_config": { "quant_method": "modelopt" } })), !ignored, "{name}");
        // A model that nothing quantized may have what it likes.
        assert!(kept(json!({})), "{name}");
    }
    let mut parts = safetensors::Parts::new();
    let part = goldens().remove("ct_fp8.weight_scale").unwrap();
    parts.insert("m.up_proj.input_quantizer._pre_quant_scale".to_owned(), part);
    let config = json!({ "quantization_config": { "quant_method": "modelopt" } });
    let error = foreign::join(Config::of(&config), &mut parts).map(|_| ()).unwrap_err();
    assert!(error.starts_with("m.up_proj.input_quantizer._pre_quant_scale: "), "{error}");
}

/// Configuration, the kind and the format that are expected, and what may be lost relative to the largest value.
fn cases() -> Vec<(&'static str, Value, &'static str, &'static str, f32)> {
    let gptq = |bits: u32| json!({ "quant_method": "gptq", "bits": bits, "group_size": 64 });
    let compressed = |bits: u32, group: i32| {
        let weights = json!({ "num_bits": bits, "group_size": group });
        json!({ "quant_method": "compressed-tensors", "config_groups": { "group_0": { "weights": weights } } })
    };
    let fp8 = |block: [u32; 2]| json!({ "quant_method": "fp8", "weight_block_size": block });
    let bnb = json!({ "quant_method": "bitsandbytes", "load_in_4bit": true });
    let v2 = json!({ "quant_method": "gptq", "checkpoint_format": "gptq_v2", "bits": 4, "group_size": 32 });
    let order = json!({ "quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true });
    let awq = json!({ "quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm" });
    vec![
        ("gptq2", gptq(2), "gptq 2-bit g64", "affine2 g64", 0.0),
        ("gptq3", gptq(3), "gptq 3-bit g64", "affine3 g64", 0.0),
        ("gptq4", gptq(4), "gptq 4-bit g64", "affine4 g64", 0.0),
        ("gptq8", gptq(8), "gptq 8-bit g64", "affine8 g64", 0.0),
        ("gptq_v2", v2, "gptq 4-bit g32", "affine4 g32", 0.0),
        ("gptq_order", order, "gptq 4-bit g32", "f16", 5e-4),
        ("awq", awq, "awq 4-bit g64", "affine4 g64", 0.0),
        ("ct_int2", compressed(2, 64), "compressed-tensors 2-bit g64", "affine2 g64", 0.0),
        ("ct_int4", compressed(4, 64), "compressed-tensors 4-bit g64", "affine4 g64", 0.0),
        ("ct_int8", compressed(8, 64), "compressed-tensors 8-bit g64", "affine8 g64", 0.0),
        ("ct_zeros", compressed(4, 32), "compressed-tensors 4-bit g32", "affine4 g32", 0.0),
        ("ct_channel", compressed(4, -1), "compressed-tensors 4-bit g96", "affine4 g32", 0.0),
        ("ct_int8_bytes", compressed(8, -1), "int8 8-bit g64", "affine8 g64", 0.0),
        ("ct_fp8", compressed(8, -1), "fp8 8-bit g64", "e4m3 g64", 0.0),
        ("ct_nvfp4", compressed(4, 16), "nvfp4 4-bit g16", "nvfp4 g16", 0.0),
        ("fp8_f32", fp8([128, 128]), "fp8 8-bit g128", "f32", 0.0),
        ("fp8_aligned", fp8([32, 128]), "fp8 8-bit g128", "e4m3 g128", 0.0),
        ("fp8_powers", fp8([32, 32]), "fp8 8-bit g32", "mxfp8 g32", 0.0),
        ("modelopt", json!({ "quant_method": "modelopt" }), "nvfp4 4-bit g16", "nvfp4 g16", 0.0),
        ("gpt_oss", json!({ "quant_method": "mxfp4" }), "mxfp4 4-bit g32", "mxfp4 g32", 0.0),
        ("bnb_nf4", bnb.clone(), "bitsandbytes 4-bit g64", "nf4 g64", 0.0),
        ("bnb_nf4_nested", bnb.clone(), "bitsandbytes 4-bit g64", "nf4 g64", 0.0),
        ("bnb_fp4", bnb.clone(), "bitsandbytes 4-bit g64", "bnb-fp4 g64", 0.0),
        ("bnb_fp4_nested", bnb.clone(), "bitsandbytes 4-bit g64", "bnb-fp4 g64", 0.0),
        ("bnb_int8", bnb.clone(), "bitsandbytes 8-bit g64", "affine8 g64", 0.0),
        ("bnb_rows_nf4", bnb.clone(), "bitsandbytes 4-bit g64", "f32", 0.0),
        ("bnb_rows_nf4_nested", bnb.clone(), "bitsandbytes 4-bit g64", "f32", 0.0),
        ("bnb_rows_fp4", bnb.clone(), "bitsandbytes 4-bit g64", "f32", 0.0),
        ("bnb_rows_fp4_nested", bnb, "bitsandbytes 4-bit g64", "f32", 0.0),
        ("ct_bytes_tensor", compressed(8, -1), "int8 8-bit g128", "affine8 g128", 0.0),
        ("ct_bytes_channel", compressed(8, -1), "int8 8-bit g128", "affine8 g128", 0.0),
        ("ct_bytes_group", compressed(8, 32), "int8 8-bit g32", "affine8 g32", 0.0),
        ("ct_pack_tensor", compressed(8, -1), "compressed-tensors 8-bit g128", "affine8 g128", 0.0),
        ("ct_pack_channel", compressed(8, -1), "compressed-tensors 8-bit g128", "affine8 g128", 0.0),
        ("ct_pack_group", compressed(8, 32), "compressed-tensors 8-bit g32", "affine8 g32", 0.0),
        ("ct_pack4_tensor", compressed(4, -1), "compressed-tensors 4-bit g128", "affine4 g128", 0.0),
        ("ct_pack4_channel", compressed(4, -1), "compressed-tensors 4-bit g128", "affine4 g128", 0.0),
    ]
}

#[test]
fn every_quantizer_decodes_and_packs_as_its_own_dequantizer_does() {
    for (case, config, kind, format, lost) in cases() {
        let (tensor, want) = load(case, config).unwrap();
        assert_eq!((tensor.kind().to_string(), tensor.format().to_string()), (kind.into(), format.into()), "{case}");
        let (rows, cols) = (tensor.rows(), tensor.cols());
        assert_eq!(rows * cols, want.len(), "{case}");
        let (mut quants, mut scales) = (vec![], vec![]);
        tensor.pack(0..rows, &mut quants, &mut scales).unwrap();
        let (mut packed, mut row) = (vec![0.0; want.len()], vec![0.0; cols]);
        unpack(tensor.format(), cols, &quants, &scales, &mut packed);
        let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (i, want) in want.into_iter().enumerate() {
            if i % cols == 0 {
                tensor.row(i / cols, &mut row);
            }
            // Products of three factors, which others multiply in another order.
            let rounded = 4.0 * f32::EPSILON * largest;
            let (row, packed) = (row[i % cols], packed[i]);
            assert!((row - want).abs() <= rounded, "{case} element {i}: {row} for {want}");
            assert!(
                (packed - want).abs() <= rounded + lost * largest,
                "{case} element {i} packed: {packed} for {want}"
            );
        }
    }
}

#[test]
fn what_is_not_supported_is_named_with_a_remedy() {
    for (case, config, message) in [
        (
            "gptq4",
            json!({ "quant_method": "gptq", "checkpoint_format": "marlin" }),
            "format `marlin` is not supported; save",
        ),
        ("awq", json!({ "quant_method": "awq", "version": "gemv" }), "version `gemv` is not supported; save"),
        ("fp8_f32", json!({ "quant_method": "fp8" }), "config.json's weight_block_size"),
    ] {
        let error = load(case, config).map(|_| ()).unwrap_err();
        assert!(error.starts_with(&format!("{case}.weight: ")) && error.contains(message), "{error}");
    }
}

/// Each part in turn is absent, or one number short: an error, and no panic.
#[test]
fn parts_that_do_not_fit_are_errors() {
    for (case, config, ..) in cases() {
        let mut parts = goldens();
        parts.retain(|name, _| belongs(name, case));
        let config = json!({ "quantization_config": config });
        for name in parts.keys().filter(|name| !name.ends_with(".values")) {
            let mut others = goldens();
            others.retain(|other, _| parts.contains_key(other));
            let mut part: Part = others.remove(name).unwrap();
            let _ = foreign::join(Config::of(&config), &mut others).map(|tensors| tensors.len());
            for dim in 0..part.shape.len() {
                let mut others = goldens();
                others.retain(|other, _| parts.contains_key(other));
                part.shape[dim] -= 1;
                let shorter = others.get_mut(name).unwrap();
                shorter.shape.clone_from(&part.shape);
                part.shape[dim] += 1;
                let tensors = foreign::join(Config::of(&config), &mut others).unwrap_or_default();
                for tensor in tensors {
                    tensor.row(tensor.rows() - 1, &mut vec![0.0; tensor.cols()]);
                }
            }
        }
    }
}

#[test]
fn scales_are_f16_where_f16_holds_them() {
    for (v, survives) in [
        (0.0, true),
        (1.0 / 3.0, false),
        (0.333_984_38, true),
        (-65504.0, true),
        (70000.0, false),
        (f32::INFINITY, false),
        (f32::NAN, false),
        (2f32.powi(-14) * 1.25, true),
        (2f32.powi(-17) * 1.25, true),
        (2f32.powi(-22) * 1.3, false),
        (2f32.powi(-24), true),
        (1e-7, true),
    ] {
        assert_eq!(survives_f16(v), survives, "{v}");
    }
}
