//! OpenAI messages: checked before a template sees them, and brought into the one form that templates know.

use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

fn bad<T>(name: String, found: &Value, expected: &str) -> Result<T> {
    let mut found = if found.is_null() { "missing".to_owned() } else { found.to_string() };
    if found.chars().count() > 80 {
        found = found.chars().take(80).chain(['…']).collect();
    }
    Err(Error::BadOption { name, found, expected: expected.to_owned() })
}

/// Checks `messages` (an OpenAI `messages` array) and returns them as templates expect them: content as one string
/// (text parts are joined), the arguments of tool calls as objects, `developer` as `system`. Other fields stay.
///
/// # Errors
/// [`Error::BadOption`] names the field, as in `messages[2].content`.
pub fn normalise(messages: &Value) -> Result<Value> {
    let Some(list) = messages.as_array().filter(|list| !list.is_empty()) else {
        return bad("messages".into(), messages, "an array of at least one message");
    };
    list.iter().enumerate().map(|(i, message)| normalise_one(&format!("messages[{i}]"), message)).collect()
}

fn normalise_one(name: &str, message: &Value) -> Result<Value> {
    let Some(fields) = message.as_object() else {
        return bad(name.into(), message, "an object with role and content");
    };
    let mut out = fields.clone();
    let role = fields.get("role").unwrap_or(&Value::Null);
    let Some(role) = role.as_str().filter(|role| ROLES.contains(role)) else {
        return bad(format!("{name}.role"), role, "one of system, developer, user, assistant, tool");
    };
    if role == "developer" {
        out.insert("role".into(), json!("system"));
    }

    let calls = fields.get("tool_calls").filter(|calls| !calls.is_null());
    match fields.get("content").unwrap_or(&Value::Null) {
        Value::String(_) => {}
        Value::Null if role == "assistant" && calls.is_some() => {}
        Value::Array(parts) => {
            out.insert("content".into(), Value::String(join_parts(name, parts)?));
        }
        other => return bad(format!("{name}.content"), other, "a string or an array of {type: \"text\", text}"),
    }
    match calls {
        None => {
            out.remove("tool_calls");
        }
        Some(calls) => {
            let field = format!("{name}.tool_calls");
            let Some(list) = calls.as_array() else { return bad(field, calls, "an array of function calls") };
            let calls = list.iter().enumerate().map(|(i, call)| normalise_call(&format!("{field}[{i}]"), call));
            out.insert("tool_calls".into(), calls.collect::<Result<_>>()?);
        }
    }
    Ok(Value::Object(out))
}

fn join_parts(name: &str, parts: &[Value]) -> Result<String> {
    let mut text = String::new();
    for (i, part) in parts.iter().enumerate() {
        let kind = &part["type"];
        if kind != "text" {
            return bad(format!("{name}.content[{i}].type"), kind, "\"text\": these models read text only");
        }
        match part["text"].as_str() {
            Some(part) => text.push_str(part),
            None => return bad(format!("{name}.content[{i}].text"), &part["text"], "a string"),
        }
    }
    Ok(text)
}

/// OpenAI sends arguments as JSON in a string; templates write them with `tojson`.
fn normalise_call(name: &str, call: &Value) -> Result<Value> {
    let mut out: Map<String, Value> = call.as_object().cloned().unwrap_or_default();
    let Some(function) = out.get_mut("function").and_then(Value::as_object_mut) else {
        return bad(name.into(), call, "an object with function {name, arguments}");
    };
    if !function.get("name").is_some_and(Value::is_string) {
        return bad(format!("{name}.function.name"), function.get("name").unwrap_or(&Value::Null), "a string");
    }
    let arguments = function.get("arguments").cloned().unwrap_or(Value::Null);
    let parsed = match &arguments {
        Value::Object(_) => Some(arguments.clone()),
        Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_object),
        _ => None,
    };
    let Some(parsed) = parsed else {
        return bad(format!("{name}.function.arguments"), &arguments, "a JSON object, as a string or as it is");
    };
    function.insert("arguments".into(), parsed);
    Ok(Value::Object(out))
}

/// Checks an OpenAI `tools` array; none and an empty one are the same.
pub fn tools(tools: Option<&Value>) -> Result<Option<&Value>> {
    let Some(tools) = tools.filter(|tools| !tools.is_null()) else { return Ok(None) };
    let Some(list) = tools.as_array() else { return bad("tools".into(), tools, "an array of tools") };
    for (i, tool) in list.iter().enumerate() {
        if !tool["function"]["name"].is_string() {
            return bad(format!("tools[{i}]"), tool, "{type: \"function\", function: {name, …}}");
        }
    }
    Ok(Some(tools).filter(|_| !list.is_empty()))
}
