//! Bytes from JavaScript: a thin binding to the sources of `web/src/sources.ts` (HTTP ranges, Blobs, streams).

use super::{ByteSource, LocalFuture};
use crate::error::{Error, Result};
use js_sys::{Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// Beyond this a JavaScript number no longer holds every integer.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** What the engine reads a model from; offsets never go back. */
export interface ByteSource {
    readonly name: string;
    readonly size: number | undefined;
    read(offset: number, length: number): Promise<Uint8Array>;
}
"#;

#[wasm_bindgen]
extern "C" {
    /// A `ByteSource` of JavaScript.
    #[wasm_bindgen(typescript_type = "ByteSource")]
    pub type JsByteSource;

    #[wasm_bindgen(method, getter)]
    fn name(this: &JsByteSource) -> String;
    #[wasm_bindgen(method, getter)]
    fn size(this: &JsByteSource) -> Option<f64>;
    #[wasm_bindgen(method, catch)]
    fn read(this: &JsByteSource, offset: f64, length: f64) -> Result<Promise, JsValue>;
}

/// A [`ByteSource`] over an object of JavaScript.
pub struct JsSource {
    object: JsByteSource,
    name: String,
}

impl JsSource {
    /// Wraps `object`.
    pub fn new(object: JsByteSource) -> Self {
        let name = object.name();
        JsSource { object, name }
    }

    fn failed(&self, thrown: &JsValue) -> Error {
        // The sources' own errors name the source already.
        let message = thrown.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message()));
        let reason = message.or_else(|| thrown.as_string()).unwrap_or_else(|| "reading failed".to_owned());
        let reason = reason.strip_prefix(&format!("{}: ", self.name)).map(str::to_owned).unwrap_or(reason);
        Error::Io { what: self.name.clone(), reason }
    }
}

impl ByteSource for JsSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len_bytes(&self) -> Option<u64> {
        let size = self.object.size()?;
        (size >= 0.0 && size <= MAX_SAFE_INTEGER as f64).then_some(size as u64)
    }

    fn read(&mut self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            if offset > MAX_SAFE_INTEGER {
                let reason = format!("byte {offset} is beyond what JavaScript can address");
                return Err(Error::Io { what: self.name.clone(), reason });
            }
            let promise = self.object.read(offset as f64, len as f64).map_err(|thrown| self.failed(&thrown))?;
            let value = JsFuture::from(promise).await.map_err(|thrown| self.failed(&thrown))?;
            let found = value.dyn_into::<Uint8Array>().ok().filter(|bytes| bytes.length() as usize <= len);
            let Some(bytes) = found else {
                let reason = format!("the source did not answer a read of {len} bytes with at most as many bytes");
                return Err(Error::Io { what: self.name.clone(), reason });
            };
            Ok(bytes.to_vec())
        })
    }
}
