//! Waiting for the device: the one file of this room that forks on the target.
//!
//! Natively a poll blocks until the submission is done and runs its callbacks. In a browser callbacks come from the event
//! loop; where maps resolve on a slow timer unless work keeps coming (Firefox, bug 1870699, about 100 ms), empty submits
//! are made while one is pending. A GPU in software gets them from timers: a loop of tasks would keep a core busy that it
//! needs (plain decoding on lavapipe, two cores, in a worker of Firefox 153: 25.4 tokens/s with timers, 15.8 with tasks, 20.7
//! with timers that the map's own task overtakes, since those come more often). Beside a GPU in hardware a core is free, and
//! the 4 ms that browsers make of a timer would be much of a pass.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Set once by a callback, awaited once.
#[derive(Clone, Default)]
pub(super) struct Signal(Arc<Mutex<(Option<bool>, Option<Waker>)>>);

impl Signal {
    /// Tells the waiter: `true` for success.
    pub(super) fn set(&self, success: bool) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = Some(success);
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What it was set to.
    fn get(&self) -> Option<bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Future for Signal {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.0 {
            Some(success) => Poll::Ready(success),
            None => {
                state.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// What a wait needs of its executor.
pub(super) struct Waiter<'a> {
    pub(super) device: &'a wgpu::Device,
    pub(super) queue: &'a wgpu::Queue,
    /// Submit empty work while waiting.
    pub(super) keep_alive: bool,
    /// The device computes on the cores that this runs on.
    #[cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "natively nothing runs while a poll blocks"))]
    pub(super) software: bool,
    /// Counts those submits.
    #[cfg_attr(
        not(target_arch = "wasm32"),
        expect(dead_code, reason = "natively a poll blocks until the map is there")
    )]
    pub(super) keep_alive_submits: &'a std::cell::Cell<u64>,
}

impl Waiter<'_> {
    /// Waits for a signal that a submission will set; `false` where the device failed or never will.
    pub(super) async fn wait(&self, submission: wgpu::SubmissionIndex, signal: Signal) -> bool {
        imp::wait(self, submission, signal).await
    }

    /// Lets callbacks run that are due.
    pub(super) fn pump(&self) {
        imp::pump(self.device);
    }

    /// Lets the device take what was written to it, so that it need not hold on to the data (natively it is done with it
    /// when this returns).
    pub(super) fn settle_writes(&self) {
        imp::settle_writes(self);
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod imp {
    use super::{Signal, Waiter};

    #[expect(clippy::unused_async, reason = "the browser's twin awaits")]
    pub(super) async fn wait(waiter: &Waiter<'_>, submission: wgpu::SubmissionIndex, signal: Signal) -> bool {
        let waited = waiter.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
        // A device that is lost sets its signals on a later poll.
        if signal.get().is_none() {
            let _ = waiter.device.poll(wgpu::PollType::Poll);
        }
        signal.get().unwrap_or(false) && waited.is_ok()
    }

    pub(super) fn pump(device: &wgpu::Device) {
        let _ = device.poll(wgpu::PollType::Poll);
    }

    pub(super) fn settle_writes(waiter: &Waiter<'_>) {
        let submission = waiter.queue.submit([]);
        let _ = waiter.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
    }
}

#[cfg(target_arch = "wasm32")]
mod imp {
    use super::{Signal, Waiter};
    use crate::runtime::{now_ms, yield_macrotask};
    use wasm_bindgen::prelude::*;
    use wasm_bindgen_futures::JsFuture;

    /// Between two empty submits: enough to keep Firefox's timer from mattering, not enough to drown the device.
    const KEEP_ALIVE_MS: i32 = 1;

    #[wasm_bindgen]
    extern "C" {
        #[wasm_bindgen(js_name = setTimeout)]
        fn set_timeout(done: &js_sys::Function, delay_ms: i32) -> JsValue;
    }

    pub(super) async fn wait(waiter: &Waiter<'_>, _submission: wgpu::SubmissionIndex, signal: Signal) -> bool {
        if waiter.keep_alive {
            while signal.get().is_none() {
                waiter.queue.submit([]);
                waiter.keep_alive_submits.set(waiter.keep_alive_submits.get() + 1);
                if waiter.software {
                    pause().await;
                    continue;
                }
                let submitted_ms = now_ms();
                while signal.get().is_none() && now_ms() - submitted_ms < f64::from(KEEP_ALIVE_MS) {
                    yield_macrotask().await;
                }
            }
        }
        signal.await
    }

    async fn pause() {
        let promise = js_sys::Promise::new(&mut |resolve, _reject| {
            set_timeout(&resolve, KEEP_ALIVE_MS);
        });
        let _ = JsFuture::from(promise).await;
    }

    pub(super) fn pump(_device: &wgpu::Device) {}

    /// A submit flushes what is staged; a wait is not possible here, the device does the rest while bytes are read.
    pub(super) fn settle_writes(waiter: &Waiter<'_>) {
        waiter.queue.submit([]);
    }
}
