//! `tamarack bench` on whatever adapter there is.

use crate::support::{run, tamarack, text, tiny};
use serde_json::Value;

const SHORT: [&str; 8] = ["--prompt", "20", "--generate", "3", "--depth", "0,30", "--repetitions", "2"];

/// That each rate is a number, and lies between its extremes.
fn check_rate(rate: &Value, what: &str) {
    let [min, median, max] = ["min", "median", "max"].map(|key| rate[key].as_f64().unwrap_or(f64::NAN));
    assert!(0.0 < min && min <= median && median <= max, "{what}: {rate}");
}

#[test]
fn synthetic_models_are_measured_and_profiled() {
    for (model, batch, dense) in [("tiny:q4g64", "1", false), ("tiny:f16", "3", true)] {
        let arguments = ["bench", "--synthetic", model, "--batch", batch, "--json", "--profile", "--device", "0"];
        let report = run(tamarack(&[&arguments[..], &SHORT].concat())).json(model);
        assert_eq!((&report["model"], &report["workload"]["depth"][1]), (&model.into(), &30.into()));
        assert!(report["bandwidth"].as_f64().unwrap() > 1e6, "{}", report["bandwidth"]);
        let weights = report["weights"]["bytes"].as_u64().unwrap();
        // A table of 512 rows and 2 layers of 512 + 128 + 128 + 512 + 256 rows, 128 columns wide.
        let values = 128 * (512 + 2 * (256 + 128 + 512 + 256));
        let norms = 5 * 128 * 4;
        assert_eq!(weights, values * if dense { 32 } else { 9 } / 16 + norms, "{model}");

        let measurements = report["measurements"].as_array().unwrap();
        assert_eq!(measurements.len(), 2);
        for m in measurements {
            check_rate(&m["prefill"], model);
            check_rate(&m["decode"], model);
            let share = m["decode_share"].as_f64().unwrap();
            assert!(share > 0.0 && m["decode_step_bytes"].as_f64().unwrap() > (weights - norms) as f64, "{m}");
            let steps: Vec<&str> = m["profiles"].as_array().unwrap().iter().flat_map(|p| p["step"].as_str()).collect();
            assert_eq!(steps, ["prefill", "decode"]);
            // A step of decoding reads every matrix once.
            let kernels = m["profiles"][1]["kernels"].as_array().unwrap();
            let read: u64 = kernels.iter().map(|k| k["weight_bytes"].as_u64().unwrap()).sum();
            assert_eq!(read, weights - norms, "{model}");
            let shares: f64 = kernels.iter().map(|k| k["share"].as_f64().unwrap()).sum();
            assert!((shares - 1.0).abs() < 1e-6, "{model}: {shares}");
        }
    }
}

#[test]
fn files_are_measured_and_tables_line_up() {
    let model = tiny("tied");
    let arguments = ["bench", "--model", text(&model), "--profile", "--device", "0"];
    let markdown = run(tamarack(&[&arguments[..], &SHORT].concat())).expect("bench");
    let heading = "## decode of 1 row at depth 30";
    assert!(markdown.contains(heading) && markdown.contains("of bandwidth"), "{markdown}");
    for table in markdown.split("\n\n").filter(|part| part.starts_with('|')) {
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert!(widths.len() > 2 && widths.iter().all(|w| *w == widths[0]), "{table}");
    }
}

#[test]
fn nothing_to_measure_is_no_number() {
    let arguments = ["bench", "--synthetic", "tiny:f16", "--prompt", "0", "--generate", "2", "--depth", "0", "--json"];
    let report = run(tamarack(&arguments)).json("bench");
    let m = &report["measurements"][0];
    assert!(m["prefill"].is_null() && m["first_token_seconds"].is_null(), "{m}");
    check_rate(&m["decode"], "decode");
}
