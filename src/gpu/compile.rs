//! Compiling everything, which a load never does: a load compiles only what its model needs.

use super::GpuExecutor;
use super::fault::caught;
use super::kernels::{Geometry, KernelKey};
use crate::error::{Error, Result};
use crate::weights::format::Layout;

impl GpuExecutor {
    /// Has the device's WGSL compiler check every permutation of every kernel, whether this device would choose it or not,
    /// and gives their labels. With `pipelines` the driver translates each as well, which takes minutes in software. Fails
    /// at the first that is refused and names it. Browsers are stricter than naga, so this is run in each.
    pub async fn compile_all(&self, pipelines: bool) -> Result<Vec<String>> {
        let mut keys = KernelKey::all(Geometry::SOFTWARE);
        keys.extend(KernelKey::all(Geometry::HARDWARE));
        // Of the other cuts one layout of each kind: what differs between layouts does not between cuts.
        for geometry in [Geometry::SOFTWARE, Geometry::HARDWARE].into_iter().flat_map(Geometry::alternatives) {
            keys.extend(KernelKey::of_layouts(geometry, &[Layout::Q4, Layout::F16]));
        }
        keys.sort();
        keys.dedup();
        let mut labels = Vec::with_capacity(keys.len());
        for key in keys {
            let label = key.label();
            let refused = |reason: String| Error::Gpu { reason: format!("shader {label}: {reason}") };
            let source = wgpu::ShaderSource::Wgsl(key.wgsl().map_err(refused)?.into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(&label), source };
            let compile = async {
                let module = self.device.create_shader_module(descriptor);
                if pipelines {
                    self.pipelines.borrow_mut().get(&self.device, key)?;
                }
                Ok::<_, Error>(module)
            };
            let (module, error) = caught(&self.device, compile).await;
            let module = module?;
            if let Some(error) = error {
                return Err(refused(error.to_string()));
            }
            let said = module.get_compilation_info().await.messages;
            if let Some(first) = said.into_iter().find(|said| said.message_type == wgpu::CompilationMessageType::Error)
            {
                return Err(refused(first.message));
            }
            labels.push(label);
        }
        self.faults.check()?;
        Ok(labels)
    }
}
