//! The few things that differ between a process and a browser tab: the clock, giving way to others, threads.

/// Milliseconds since some fixed moment, monotonic.
pub fn now_ms() -> f64 {
    imp::now_ms()
}

/// Seconds since 1970-01-01 UTC, by the machine's wall clock.
pub fn unix_time_s() -> u64 {
    imp::unix_time_s()
}

/// Lets the host do something else: in a browser a *macrotask*, so that messages get in; natively nothing.
pub async fn yield_macrotask() {
    imp::yield_macrotask().await;
}

/// Runs `work(i, chunk)` for every `chunk_len` items of `items`, on all cores where there are threads.
pub fn parallel_chunks<T: Send>(items: &mut [T], chunk_len: usize, work: impl Fn(usize, &mut [T]) + Sync + Send) {
    imp::parallel_chunks(items, chunk_len, work);
}

/// Runs `work` on one of the threads that [`parallel_chunks`] spreads over: within, the others are awake.
pub fn among_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    imp::among_threads(work)
}

/// Threads that [`parallel_chunks`] spreads over.
pub fn threads() -> usize {
    imp::threads()
}

/// Memory that is free on this machine, where it tells, or in a browser what wasm can address; in bytes.
pub fn memory_bytes() -> Option<u64> {
    imp::memory_bytes()
}

#[cfg(not(target_arch = "wasm32"))]
mod imp {
    use rayon::prelude::*;
    use std::sync::OnceLock;
    use std::time::Instant;

    pub(super) fn now_ms() -> f64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
    }

    pub(super) fn unix_time_s() -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }

    pub(super) async fn yield_macrotask() {}

    pub(super) fn parallel_chunks<T: Send>(
        items: &mut [T],
        chunk_len: usize,
        work: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        items.par_chunks_mut(chunk_len).enumerate().for_each(|(index, chunk)| work(index, chunk));
    }

    pub(super) fn among_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        rayon::scope(|_| work())
    }

    pub(super) fn threads() -> usize {
        rayon::current_num_threads()
    }

    pub(super) fn memory_bytes() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }
}

#[cfg(target_arch = "wasm32")]
mod imp {
    use wasm_bindgen::prelude::*;

    #[wasm_bindgen]
    extern "C" {
        #[wasm_bindgen(js_namespace = performance)]
        fn now() -> f64;
    }

    pub(super) fn now_ms() -> f64 {
        now()
    }

    pub(super) fn unix_time_s() -> u64 {
        (js_sys::Date::now() / 1e3) as u64
    }

    /// A message to oneself: unlike a timer it is not clamped to 4 ms.
    pub(super) async fn yield_macrotask() {
        let promise = js_sys::Promise::new(&mut |resolve, _reject| {
            let Ok(channel) = web_sys::MessageChannel::new() else {
                let _ = resolve.call0(&JsValue::NULL);
                return;
            };
            let port = channel.port1();
            let closing = port.clone();
            let handler = Closure::once_into_js(move || {
                closing.close();
                let _ = resolve.call0(&JsValue::NULL);
            });
            port.set_onmessage(Some(handler.unchecked_ref()));
            let _ = channel.port2().post_message(&JsValue::NULL);
        });
        let _ = wasm_bindgen_futures::JsFuture::from(promise).await;
    }

    pub(super) fn parallel_chunks<T: Send>(
        items: &mut [T],
        chunk_len: usize,
        work: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        items.chunks_mut(chunk_len).enumerate().for_each(|(index, chunk)| work(index, chunk));
    }

    pub(super) fn among_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        work()
    }

    pub(super) fn threads() -> usize {
        1
    }

    pub(super) fn memory_bytes() -> Option<u64> {
        Some(4 << 30)
    }
}
