//! `devices`, `inspect` and `fetch`: what there is.

use super::models::{open, path_of};
use super::output::{print_json, say};
use foredraft::error::Result;
use foredraft::model::MemoryPlan;
use foredraft::weights::gguf::read_header;
use serde_json::json;
use std::collections::BTreeMap;

/// What there is to run on.
pub(super) async fn devices(json: bool) -> Result<()> {
    let report = foredraft::device::devices().await?;
    if json {
        return print_json(&report);
    }
    for adapter in &report.adapters {
        let software = if adapter.software { ", in software" } else { "" };
        say!("{} ({}, {}{software}; {})", adapter.name, adapter.backend, adapter.kind, adapter.driver);
        say!("  features: {}", adapter.features.join(", "));
        say!(
            "  limits: binding {} MiB, buffer {} MiB, {} storage buffers, {} KiB workgroup memory, {} threads",
            adapter.max_storage_buffer_binding_bytes >> 20,
            adapter.max_buffer_bytes >> 20,
            adapter.max_storage_buffers_per_stage,
            adapter.max_workgroup_bytes >> 10,
            adapter.max_workgroup_threads
        );
    }
    say!("--device auto takes {}: {} ({})", report.auto.kind, report.auto.name, report.reason);
    match (&report.gpu, &report.gpu_error) {
        (Some(gpu), _) => {
            say!("--device gpu takes {}; self-test passed in {:.0} ms", gpu.device.name, gpu.self_test.duration_ms);
            say!("  same bits in every width: {}", gpu.self_test.same_bits.join(", "));
            for kernel in &gpu.kernels {
                say!("  {}: {} ({})", kernel.kernel, kernel.choice, kernel.reason);
            }
            say!("  fingerprint: {}", gpu.fingerprint);
        }
        (None, error) => say!("--device gpu: {}", error.as_deref().unwrap_or("none")),
    }
    Ok(())
}

/// What a model file holds.
pub(super) async fn inspect(model: &str, context: Option<usize>, json: bool) -> Result<()> {
    let mut source = open(model)?;
    let gguf = read_header(source.as_mut()).await?;
    let memory = MemoryPlan::of(&gguf, context.unwrap_or(foredraft::engine::DEFAULT_CONTEXT))?;
    if json {
        let metadata: BTreeMap<_, _> = gguf.metadata.values.iter().map(|(key, value)| (key, value.brief())).collect();
        let tensors: Vec<_> = gguf
            .tensors
            .iter()
            .map(|t| json!({ "name": t.name, "shape": t.shape, "format": t.format.name(), "bytes": t.bytes }))
            .collect();
        return print_json(&json!({ "file": gguf.what, "metadata": metadata, "tensors": tensors, "memory": memory }));
    }
    say!("{}", gguf.what);
    for (key, value) in &gguf.metadata.values {
        say!("  {key} = {}", value.brief());
    }
    for tensor in &gguf.tensors {
        say!("  {:<40} {:<8} {:?}", tensor.name, tensor.format.name(), tensor.shape);
    }
    say!("memory: {memory}");
    Ok(())
}

/// Downloads a model.
pub(super) fn fetch(model: &str) -> Result<()> {
    say!("{}", path_of(model)?.display());
    Ok(())
}
