//! The wasm of schemas (`src/grammar`), as `web/src/grammar.ts` hands it over.

use crate::error::{Error, Result};
use crate::text::grammar::{Grammar, Grammars};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** Makes matchers of JSON schemas for the tokens of one model. */
export interface SchemaVocabulary {
    matcher(schema: string): SchemaMatcher;
}
/** A text on its way through a schema. */
export interface SchemaMatcher {
    allows(token: number): boolean;
    advance(token: number): void;
    mask(): Uint32Array;
    forced(): Uint8Array;
    complete(): boolean;
    free(): void;
}
"#;

#[wasm_bindgen]
extern "C" {
    /// A `SchemaVocabulary` of JavaScript.
    #[wasm_bindgen(typescript_type = "SchemaVocabulary")]
    pub type JsVocabulary;
    #[wasm_bindgen(method, catch)]
    fn matcher(this: &JsVocabulary, schema: &str) -> Result<JsMatcher, JsValue>;

    type JsMatcher;
    #[wasm_bindgen(method, catch)]
    fn allows(this: &JsMatcher, token: u32) -> Result<bool, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn advance(this: &JsMatcher, token: u32) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn mask(this: &JsMatcher) -> Result<Vec<u32>, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn forced(this: &JsMatcher) -> Result<Vec<u8>, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn complete(this: &JsMatcher) -> Result<bool, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn free(this: &JsMatcher) -> Result<(), JsValue>;
}

/// What JavaScript threw: its own words, or that the wasm has trapped, which `web/src/grammar.ts` knows by these words.
fn refused(thrown: JsValue) -> Error {
    let trapped = thrown.is_instance_of::<js_sys::WebAssembly::RuntimeError>();
    let message = thrown.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message())).unwrap_or_default();
    Error::Schema { reason: if trapped { format!("its matcher broke down ({message})") } else { message } }
}

impl Grammars for JsVocabulary {
    fn grammar(&self, schema: &str) -> Result<Box<dyn Grammar>> {
        Ok(Box::new(JsGrammar(self.matcher(schema).map_err(refused)?)))
    }
}

struct JsGrammar(JsMatcher);

impl Grammar for JsGrammar {
    fn allows(&mut self, token: u32) -> Result<bool> {
        self.0.allows(token).map_err(refused)
    }

    fn advance(&mut self, token: u32) -> Result<()> {
        self.0.advance(token).map_err(refused)
    }

    fn mask(&mut self) -> Result<Vec<u32>> {
        self.0.mask().map_err(refused)
    }

    fn forced(&mut self) -> Result<Vec<u8>> {
        self.0.forced().map_err(refused)
    }

    fn complete(&self) -> Result<bool> {
        self.0.complete().map_err(refused)
    }
}

impl Drop for JsGrammar {
    fn drop(&mut self) {
        // After a trap there is nothing to free.
        let _ = self.0.free();
    }
}
