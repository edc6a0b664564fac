//! The key-value part of a GGUF header.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// One metadata value (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>); integers are widened.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Uint(u64),
    /// Any signed integer.
    Int(i64),
    /// `f32` or `f64`.
    Float(f64),
    /// `bool`.
    Bool(bool),
    /// UTF-8 string.
    String(String),
    /// Array of strings.
    Strings(Vec<String>),
    /// Array of floats.
    Floats(Vec<f32>),
    /// Array of integers or bools.
    Ints(Vec<i64>),
}

impl Value {
    /// A short form for messages and `inspect`: arrays only by length.
    pub fn brief(&self) -> String {
        match self {
            Value::Uint(v) => v.to_string(),
            Value::Int(v) => v.to_string(),
            Value::Float(v) => v.to_string(),
            Value::Bool(v) => v.to_string(),
            Value::String(v) if v.chars().count() > 80 => {
                format!("{:?}… ({} characters)", v.chars().take(80).collect::<String>(), v.chars().count())
            }
            Value::String(v) => format!("{v:?}"),
            Value::Strings(v) => format!("[{} strings]", v.len()),
            Value::Floats(v) => format!("[{} floats]", v.len()),
            Value::Ints(v) => format!("[{} integers]", v.len()),
        }
    }
}

/// All metadata of a file, with typed look-ups whose errors name the key.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// The file, for messages.
    pub what: String,
    /// Every key.
    pub values: BTreeMap<String, Value>,
}

impl Metadata {
    fn wrong(&self, key: &str, expected: &str) -> Error {
        Error::BadHeader {
            what: self.what.clone(),
            field: key.to_owned(),
            found: self.values.get(key).map_or_else(|| "missing".to_owned(), Value::brief),
            expected: expected.to_owned(),
        }
    }
    /// A string that must be there.
    pub fn string(&self, key: &str) -> Result<&str> {
        self.opt_string(key)?.ok_or_else(|| self.wrong(key, "a string"))
    }
    /// A string that may be missing; of another type is an error.
    pub fn opt_string(&self, key: &str) -> Result<Option<&str>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => Ok(Some(v)),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }
    /// An unsigned integer below 2^32 that must be there.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.opt_u32(key)?.ok_or_else(|| self.wrong(key, "an unsigned integer"))
    }
    /// An unsigned integer below 2^32 that may be missing.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>> {
        let number = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Uint(v)) => u32::try_from(*v).ok(),
            Some(Value::Int(v)) => u32::try_from(*v).ok(),
            Some(_) => None,
        };
        number.map(Some).ok_or_else(|| self.wrong(key, "an unsigned integer below 2^32"))
    }
    /// A finite float that may be missing; integers will do.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        let number = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Float(v)) => *v as f32,
            Some(Value::Uint(v)) => *v as f32,
            Some(Value::Int(v)) => *v as f32,
            Some(_) => return Err(self.wrong(key, "a number")),
        };
        if number.is_finite() { Ok(Some(number)) } else { Err(self.wrong(key, "a finite number")) }
    }
    /// A bool that may be missing.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }
    /// An array of strings that must be there.
    pub fn strings(&self, key: &str) -> Result<&[String]> {
        match self.values.get(key) {
            Some(Value::Strings(v)) => Ok(v),
            _ => Err(self.wrong(key, "an array of strings")),
        }
    }
    /// An array of floats that may be missing.
    pub fn opt_floats(&self, key: &str) -> Result<Option<&[f32]>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Floats(v)) => Ok(Some(v)),
            Some(_) => Err(self.wrong(key, "an array of floats")),
        }
    }
    /// An array of integers that may be missing.
    pub fn opt_ints(&self, key: &str) -> Result<Option<&[i64]>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Ints(v)) => Ok(Some(v)),
            Some(_) => Err(self.wrong(key, "an array of integers")),
        }
    }
}
