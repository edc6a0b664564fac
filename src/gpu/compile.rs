//! Compiling everything, which a load never does: a load compiles only what its model needs.

use super::GpuExecutor;
use super::kernels::{Geometry, KernelKey};
use crate::error::{Error, Result};

impl GpuExecutor {
    /// Compiles every permutation of every kernel, whether this device would choose it or not, and gives their labels.
    /// Fails at the first that the device refuses and names it. Browsers are stricter than naga, so this is run in each.
    pub async fn compile_all(&self) -> Result<Vec<String>> {
        let mut keys = KernelKey::all(Geometry::SOFTWARE);
        keys.extend(KernelKey::all(Geometry::HARDWARE));
        keys.sort();
        keys.dedup();
        let mut labels = Vec::with_capacity(keys.len());
        for key in keys {
            let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
            let compiled = self.pipelines.borrow_mut().get(&self.device, key);
            let refused = scope.pop().await;
            compiled?;
            if let Some(error) = refused {
                return Err(Error::Gpu { reason: format!("shader {}: {error}", key.label()) });
            }
            labels.push(key.label());
        }
        self.faults.check()?;
        Ok(labels)
    }
}
