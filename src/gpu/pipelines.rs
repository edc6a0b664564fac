//! Pipelines by key, and the bind group layouts they share.

use super::kernels::{Binding, Interface, KernelKey};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::rc::Rc;

/// A compiled kernel.
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) bind_group_layout: wgpu::BindGroupLayout,
    pub(super) interface: Interface,
}

/// Kernels compiled so far.
#[derive(Default)]
pub(super) struct Pipelines {
    by_key: HashMap<KernelKey, Rc<Pipeline>>,
    /// Layouts by how bindings are used: kernels with equal ones share, so bind groups fit each of them.
    layouts: HashMap<Vec<Binding>, (wgpu::BindGroupLayout, wgpu::PipelineLayout)>,
}

impl Pipelines {
    /// The kernel, compiled when first asked for.
    pub(super) fn get(&mut self, device: &wgpu::Device, key: KernelKey) -> Result<Rc<Pipeline>> {
        if let Some(pipeline) = self.by_key.get(&key) {
            return Ok(pipeline.clone());
        }
        let broken = |reason: String| Error::Gpu { reason: format!("shader {}: {reason}", key.label()) };
        let wgsl = key.wgsl().map_err(broken)?;
        let interface = Interface::of(&wgsl).map_err(broken)?;
        let (bind_group_layout, pipeline_layout) =
            self.layouts.entry(interface.bindings.clone()).or_insert_with(|| layouts(device, &interface.bindings));
        let label = key.label();
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(&label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
        // SAFETY: no index of these kernels is out of bounds and no loop is endless. They are part of this crate; their
        // sizes and buffers were checked by `prepare`, positions, columns, slots and offsets into TOKENS by `submit`, for
        // each run, and ids that come from the device (tokens) are compared with the row count by the kernels.
        let module = unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // No kernel uses a word of workgroup memory that it did not write.
                zero_initialize_workgroup_memory: false,
                ..wgpu::PipelineCompilationOptions::default()
            },
            cache: None,
        });
        let compiled = Rc::new(Pipeline { pipeline, bind_group_layout: bind_group_layout.clone(), interface });
        self.by_key.insert(key, compiled.clone());
        Ok(compiled)
    }
}

fn layouts(device: &wgpu::Device, bindings: &[Binding]) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
    let entry = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty,
        count: None,
    };
    let buffer = |ty, has_dynamic_offset| wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None };
    let mut entries = vec![
        entry(0, buffer(wgpu::BufferBindingType::Uniform, true)),
        entry(1, buffer(wgpu::BufferBindingType::Uniform, false)),
    ];
    for (i, &binding) in bindings.iter().enumerate() {
        let ty = match binding {
            Binding::Read => buffer(wgpu::BufferBindingType::Storage { read_only: true }, false),
            Binding::Write => buffer(wgpu::BufferBindingType::Storage { read_only: false }, false),
            Binding::Uniform => buffer(wgpu::BufferBindingType::Uniform, false),
            Binding::Texture => wgpu::BindingType::Texture {
                sample_type: wgpu::TextureSampleType::Uint,
                view_dimension: wgpu::TextureViewDimension::D2,
                multisampled: false,
            },
        };
        entries.push(entry(i + 2, ty));
    }
    let bind_group_layout =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&bind_group_layout)],
        immediate_size: 0,
    });
    (bind_group_layout, pipeline_layout)
}
