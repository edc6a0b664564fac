//! Choosing where to run, and saying why.

use crate::cpu::CpuExecutor;
use crate::error::Result;
use crate::gpu::{AdapterChoice, AdapterReport, GpuExecutor, KernelChoice, SelfTestReport, adapters};
use crate::plan::{Arithmetic, AttentionShape, DeviceInfo, Executor};
use crate::weights::format::Layout;
use std::rc::Rc;

/// Where to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// A hardware adapter, else the CPU.
    #[default]
    Auto,
    /// An adapter, be it in software; an error where there is none.
    Gpu,
    /// Plain Rust.
    Cpu,
}

/// An executor, and why it is that one.
pub(crate) struct Device {
    pub(crate) executor: Rc<dyn Executor>,
    /// The same executor, where it is a GPU.
    pub(crate) gpu: Option<Rc<GpuExecutor>>,
    pub(crate) reason: String,
    /// What the self-test found, where it is a GPU.
    pub(crate) self_test: Option<SelfTestReport>,
}

impl Device {
    /// Opens what the choice says, has `tune` decide how a GPU multiplies matrices, and tests the kernels of `layouts` and of
    /// attention of these `shapes` on it.
    pub(crate) async fn open(
        choice: DeviceChoice,
        arithmetic: Option<Arithmetic>,
        layouts: &[Layout],
        shapes: &[AttentionShape],
        tune: impl AsyncFn(&GpuExecutor) -> Result<()>,
    ) -> Result<Device> {
        let tested = async |adapter| {
            let gpu = GpuExecutor::request_with(adapter, arithmetic, None).await?;
            tune(&gpu).await?;
            let report = gpu.self_test(layouts, shapes).await?;
            Ok::<_, crate::error::Error>((Rc::new(gpu), report))
        };
        let on_gpu = |(gpu, report): (Rc<GpuExecutor>, SelfTestReport), reason: &str| Device {
            executor: Rc::clone(&gpu) as Rc<dyn Executor>,
            gpu: Some(gpu),
            reason: reason.to_owned(),
            self_test: Some(report),
        };
        match choice {
            DeviceChoice::Cpu => Ok(Device::cpu(arithmetic, "asked for".to_owned())),
            DeviceChoice::Gpu => Ok(on_gpu(tested(AdapterChoice::Any).await?, "asked for")),
            DeviceChoice::Auto => match tested(AdapterChoice::Hardware).await {
                Ok(gpu) => Ok(on_gpu(gpu, "a hardware adapter")),
                Err(error) => Ok(Device::cpu(arithmetic, error.to_string())),
            },
        }
    }

    fn cpu(arithmetic: Option<Arithmetic>, reason: String) -> Device {
        let executor = arithmetic.map_or_else(CpuExecutor::default, CpuExecutor::with);
        Device { executor: Rc::new(executor), gpu: None, reason, self_test: None }
    }
}

/// What there is to run on, and what would be used.
#[derive(Debug, serde::Serialize)]
pub struct DevicesReport {
    /// Every adapter.
    pub adapters: Vec<AdapterReport>,
    /// What `auto` takes.
    pub auto: DeviceInfo,
    /// Why.
    pub reason: String,
    /// The GPU that `auto` or, if that takes none, `gpu` would use.
    pub gpu: Option<GpuReport>,
    /// Why there is no GPU to report on.
    pub gpu_error: Option<String>,
}

/// A GPU that was opened and tested.
#[derive(Debug, serde::Serialize)]
pub struct GpuReport {
    /// Its name.
    pub device: DeviceInfo,
    /// Mat-vecs of every layout against the host, and they and attention in every width against the widest.
    pub self_test: SelfTestReport,
    /// What was decided for it, and why.
    pub kernels: Vec<KernelChoice>,
    /// What the bits depend on.
    pub fingerprint: String,
}

/// Opens and tests what there is.
pub async fn devices() -> Result<DevicesReport> {
    let auto = Device::open(DeviceChoice::Auto, None, &Layout::ALL, &[], async |_| Ok(())).await?;
    let gpu = async {
        let gpu = GpuExecutor::request(AdapterChoice::Any).await?;
        let self_test = gpu.self_test(&Layout::ALL, &[]).await?;
        let (device, kernels, fingerprint) = (gpu.device(), gpu.kernel_choices(), gpu.fingerprint());
        Ok::<_, crate::error::Error>(GpuReport { device, self_test, kernels, fingerprint })
    };
    let (gpu, gpu_error) = match gpu.await {
        Ok(gpu) => (Some(gpu), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let (adapters, reason) = (adapters().await, auto.reason.clone());
    Ok(DevicesReport { adapters, auto: auto.executor.device(), reason, gpu, gpu_error })
}
