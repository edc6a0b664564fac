//! What went wrong on the device, as its callbacks tell it, kept until somebody asks.

use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Default)]
struct State {
    lost: Option<String>,
    refused: Option<String>,
    out_of_memory: Option<String>,
}

/// Faults of one device. A lost device stays lost and refused work stays refused; lack of memory is told once.
#[derive(Clone)]
pub(super) struct Faults {
    device: String,
    state: Arc<Mutex<State>>,
}

impl Faults {
    /// Listens to a device.
    pub(super) fn watch(device: &wgpu::Device, name: &str) -> Faults {
        let faults = Faults { device: name.to_owned(), state: Arc::default() };
        let lost = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            let said = if message.is_empty() { format!("{reason:?}") } else { message };
            lost.with(|state| {
                state.lost.get_or_insert(said);
            });
        });
        let uncaptured = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            uncaptured.with(|state| {
                match &error {
                    wgpu::Error::OutOfMemory { source } => state.out_of_memory.get_or_insert(source.to_string()),
                    _ => state.refused.get_or_insert(error.to_string()),
                };
            });
        }));
        faults
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first fault that nobody was told yet, or that stays.
    pub(super) fn check(&self) -> Result<()> {
        self.with(|state| {
            if let Some(reason) = &state.lost {
                return Err(Error::DeviceLost { reason: reason.clone() });
            }
            if let Some(said) = state.out_of_memory.take() {
                return Err(Error::OutOfMemory {
                    device: self.device.clone(),
                    plan: format!("the device says: {said}"),
                });
            }
            match &state.refused {
                Some(reason) => Err(Error::Gpu { reason: reason.clone() }),
                None => Ok(()),
            }
        })
    }

    /// The fault behind something that failed without saying why.
    pub(super) fn or(&self, reason: &str) -> Error {
        self.check().err().unwrap_or_else(|| Error::Gpu { reason: reason.to_owned() })
    }
}

/// Does something and tells what the device refused meanwhile, which is no fault then: a call that is invalid, or a pipeline
/// that the driver cannot make.
pub(super) async fn caught<T>(device: &wgpu::Device, work: impl Future<Output = T>) -> (T, Option<wgpu::Error>) {
    // The last that was pushed is to be popped first, also where this is given up halfway: variables go in that order.
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let result = work.await;
    let invalid = validation.pop().await;
    // What uses a pipeline that could not be made is invalid too.
    (result, internal.pop().await.or(invalid))
}
