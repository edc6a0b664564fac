//! A GPU to test on, and short ways to use an executor.

use foredraft::gpu::kernels::Geometry;
use foredraft::gpu::{AdapterChoice, GpuExecutor};
use foredraft::plan::{Arithmetic, BufferId, Executor, Params, Plan, Step, Submission};
use futures_lite::future::block_on;

/// Any adapter, software ones included. A test that gets none fails and says what to install.
pub(crate) fn gpu() -> GpuExecutor {
    gpu_with(None, None)
}

/// The same with another arithmetic or geometry than the device would choose.
pub(crate) fn gpu_with(arithmetic: Option<Arithmetic>, geometry: Option<Geometry>) -> GpuExecutor {
    static RUNTIME_DIR: std::sync::Once = std::sync::Once::new();
    RUNTIME_DIR.call_once(|| {
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
            // SAFETY: every test that reads the environment comes through here first and waits for this to be done.
            unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
        }
    });
    block_on(GpuExecutor::request_with(AdapterChoice::Any, arithmetic, geometry)).unwrap_or_else(|error| {
        panic!("{error}. These tests need a Vulkan driver: on Debian `apt-get install mesa-vulkan-drivers libvulkan1`")
    })
}

/// Makes a buffer with contents.
pub(crate) fn upload(executor: &dyn Executor, words: &[u32]) -> BufferId {
    let buffer = executor.alloc("test", words.len()).expect("alloc");
    executor.write(buffer, 0, words).expect("write");
    buffer
}

/// The same from floats.
pub(crate) fn upload_floats(executor: &dyn Executor, floats: &[f32]) -> BufferId {
    upload(executor, bytemuck::cast_slice(floats))
}

/// The first words of a buffer.
pub(crate) fn read(executor: &dyn Executor, buffer: BufferId, words: usize) -> Vec<u32> {
    block_on(executor.read(buffer, 0, words)).expect("read")
}

/// Words as floats.
pub(crate) fn floats(words: Vec<u32>) -> Vec<f32> {
    words.into_iter().map(f32::from_bits).collect()
}

/// Prepares and runs steps once.
pub(crate) fn run(executor: &dyn Executor, bucket: usize, steps: Vec<Step>, tokens: &[u32], params: Params) {
    let plan = executor.prepare(Plan { label: "test".to_owned(), bucket, steps }).expect("prepare");
    let tokens = vec![(params.token_at as usize, tokens.to_vec())];
    let ticket = executor.submit(Submission { tokens, runs: vec![(plan, params)], read: (0, 0) }).expect("submit");
    block_on(executor.finish(ticket)).expect("finish");
}
