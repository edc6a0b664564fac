//! Finding an adapter: what there is, what is software, and which one is taken.

use crate::error::{Error, Result};

/// Which adapters will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterChoice {
    /// Only a GPU in hardware.
    Hardware,
    /// A GPU in hardware, else one in software.
    Any,
}

/// An adapter, for `foredraft devices`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AdapterReport {
    /// The adapter's own name; browsers may withhold it.
    pub name: String,
    /// `Vulkan`, `Metal`, `BrowserWebGpu`, …
    pub backend: String,
    /// `DiscreteGpu`, `IntegratedGpu`, `Cpu`, …
    pub kind: String,
    /// A GPU in software.
    pub software: bool,
    /// Driver and its version, where they are told.
    pub driver: String,
    /// Features the adapter has; none of them is needed.
    pub features: Vec<String>,
    /// Largest buffer that a kernel can be given.
    pub max_storage_buffer_binding_bytes: u64,
    /// Largest buffer.
    pub max_buffer_bytes: u64,
    /// Storage buffers a kernel may have; 8 are needed.
    pub max_storage_buffers_per_stage: u32,
    /// Workgroup memory; 16 KiB are needed.
    pub max_workgroup_bytes: u32,
    /// Threads in a workgroup; 256 are needed.
    pub max_workgroup_threads: u32,
}

/// Every adapter of this machine (in a browser: the one it offers).
pub async fn adapters() -> Vec<AdapterReport> {
    found().await.iter().map(report).collect()
}

async fn found() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    instance.enumerate_adapters(wgpu::Backends::all()).await
}

pub(super) fn report(adapter: &wgpu::Adapter) -> AdapterReport {
    let info = adapter.get_info();
    let limits = adapter.limits();
    AdapterReport {
        software: is_software(&info),
        name: if info.name.is_empty() { "unnamed adapter".to_owned() } else { info.name },
        backend: format!("{:?}", info.backend),
        kind: format!("{:?}", info.device_type),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        features: adapter.features().iter_names().map(|(name, _)| name.to_owned()).collect(),
        max_storage_buffer_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        max_storage_buffers_per_stage: limits.max_storage_buffers_per_shader_stage,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_workgroup_threads: limits.max_compute_invocations_per_workgroup,
    }
}

fn is_software(info: &wgpu::AdapterInfo) -> bool {
    let name = format!("{} {} {}", info.name, info.driver, info.driver_info).to_lowercase();
    info.device_type == wgpu::DeviceType::Cpu
        || ["swiftshader", "llvmpipe", "lavapipe", "softpipe", "basic render"].iter().any(|known| name.contains(known))
}

/// The adapter to use, hardware before software.
pub(super) async fn choose(choice: AdapterChoice) -> Result<wgpu::Adapter> {
    let mut adapters = found().await;
    let names: Vec<String> = adapters
        .iter()
        .map(|adapter| {
            let report = report(adapter);
            format!("{}{}", report.name, if report.software { " (software)" } else { "" })
        })
        .collect();
    if choice == AdapterChoice::Hardware {
        adapters.retain(|adapter| !is_software(&adapter.get_info()));
    }
    let rank = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        match info.device_type {
            _ if is_software(&info) => 3,
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu => 1,
            _ => 2,
        }
    };
    adapters.into_iter().min_by_key(rank).ok_or_else(|| Error::NoAdapter {
        reason: match (names.is_empty(), choice) {
            (true, _) => "none was found: WebGPU needs a Vulkan or Metal driver (or a browser with WebGPU switched on)"
                .to_owned(),
            (false, _) => format!("a hardware adapter was asked for, found only {}", names.join(", ")),
        },
    })
}

/// A device with no features and the adapter's own sizes of buffers.
pub(super) async fn open(adapter: &wgpu::Adapter) -> Result<(wgpu::Device, wgpu::Queue)> {
    let offered = adapter.limits();
    let required_limits = wgpu::Limits {
        max_storage_buffer_binding_size: offered.max_storage_buffer_binding_size,
        max_buffer_size: offered.max_buffer_size,
        ..wgpu::Limits::default()
    };
    let descriptor = wgpu::DeviceDescriptor { label: Some("foredraft"), required_limits, ..Default::default() };
    adapter
        .request_device(&descriptor)
        .await
        .map_err(|error| Error::NoAdapter { reason: format!("{}: {error}", report(adapter).name) })
}
