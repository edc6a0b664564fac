//! Chat templates: the Jinja program in a model file that turns messages into a prompt.
//!
//! The file is not trusted: a template sees the messages and nothing else, and runs on a budget of steps, of nested
//! calls and of output. It behaves as in Hugging Face's transformers (`apply_chat_template`), which is what templates are
//! written for: blocks trim their lines, `tojson` writes as Python does, `raise_exception` and `strftime_now` are there.
//!
//! What the budget does not bound is the memory of a string that a template doubles and doubles without printing it:
//! minijinja has no hook there.

use super::messages;
use crate::error::{Error, Result};
use crate::runtime;
use crate::weights::metadata::Metadata;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, context};
use serde::Serialize;
use std::borrow::Cow;
use std::io::Write;

/// Longest template that is read; real ones have up to some tens of KiB.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Steps of the template machine a render; a long chat takes some ten thousand.
const MAX_STEPS: u64 = 2_000_000;
/// Macros and the like inside each other.
const MAX_DEPTH: usize = 100;
/// Longest prompt.
const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// The template's name inside its environment.
const NAME: &str = "chat_template";

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// It says something of `tools`; most do not, and would leave them out without a word.
    knows_tools: bool,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`Error::Template`] with the line, or that it is longer than 1 MiB.
    pub fn new(source: &str) -> Result<ChatTemplate> {
        if source.len() > MAX_SOURCE_BYTES {
            let reason = format!("it is {} bytes long, expected at most {MAX_SOURCE_BYTES}", source.len());
            return Err(Error::Template { reason });
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(python_formatter);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_recursion_limit(MAX_DEPTH);
        environment.add_filter("tojson", python_json);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: &str| {
            strftime(format, runtime::unix_time_s())
                .map_err(|reason| minijinja::Error::new(ErrorKind::InvalidOperation, reason))
        });
        let knows_tools = source.contains("tools");
        let source = without_generation_tags(source).into_owned();
        environment.add_template_owned(NAME, source).map_err(explain)?;
        Ok(ChatTemplate { environment, knows_tools })
    }

    /// The template in a model file, `tokenizer.chat_template`; base models have none.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<ChatTemplate>> {
        metadata.opt_string("tokenizer.chat_template")?.map(ChatTemplate::new).transpose()
    }

    /// The prompt for OpenAI `messages` (and `tools`), to be encoded with `parse_special`; many templates write BOS
    /// themselves. `add_generation_prompt` opens the assistant's turn.
    ///
    /// # Errors
    /// [`Error::BadOption`] names a wrong field of the messages; [`Error::Template`] is the template's own complaint
    /// (`raise_exception`), a fault in it, or a budget run out.
    pub fn render(
        &self,
        messages: &serde_json::Value,
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
        bos: &str,
        eos: &str,
    ) -> Result<String> {
        let messages = messages::normalise(messages)?;
        let tools = messages::tools(tools)?;
        if tools.is_some() && !self.knows_tools {
            return Err(Error::BadOption {
                name: "tools".to_owned(),
                found: "given to a model whose chat template has no place for them".to_owned(),
                expected: "a model that was trained to call tools, or none".to_owned(),
            });
        }
        let context = context! {
            messages => Value::from_serialize(&messages),
            tools => tools.map(Value::from_serialize).unwrap_or(Value::from(())),
            documents => Value::from(()),
            add_generation_prompt => add_generation_prompt,
            bos_token => bos,
            eos_token => eos,
        };
        let mut output = Limited { bytes: Vec::new(), full: false };
        let template = self.environment.get_template(NAME).map_err(explain)?;
        let result = template.render_captured_to(context, &mut output).map(drop);
        if output.full {
            let reason = format!("it writes more than {MAX_OUTPUT_BYTES} bytes");
            return Err(Error::Template { reason });
        }
        result.map_err(explain)?;
        String::from_utf8(output.bytes)
            .map_err(|_| Error::Template { reason: "it writes text that is not UTF-8".into() })
    }
}

/// A sink that takes so much and no more.
struct Limited {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT_BYTES {
            self.full = true;
            return Err(std::io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn explain(error: minijinja::Error) -> Error {
    let mut reason = match error.kind() {
        ErrorKind::OutOfFuel => format!("it ran out of its budget of {MAX_STEPS} steps"),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    if let Some(line) = error.line() {
        reason.push_str(&format!(" (line {line})"));
    }
    Error::Template { reason }
}

/// Prints truth values and nothing as Python does.
fn python_formatter(output: &mut Output, state: &State, value: &Value) -> Result<(), minijinja::Error> {
    let text = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(output, state, value),
    };
    output.write_str(text).map_err(minijinja::Error::from)
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn python_json(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<String, minijinja::Error> {
    const MAX_INDENT: usize = 16;
    let indent = indent.or(options.get::<Option<usize>>("indent")?);
    // Both are what we do anyway.
    let _: Option<bool> = options.get("ensure_ascii")?;
    let _: Option<Value> = options.get("separators")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = " ".repeat(indent.min(MAX_INDENT));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonSpacing)),
    };
    let wrong = |reason: String| minijinja::Error::new(ErrorKind::InvalidOperation, reason);
    written.map_err(|reason| wrong(format!("tojson: {reason}")))?;
    String::from_utf8(out).map_err(|reason| wrong(format!("tojson: {reason}")))
}

/// A space after every comma and colon.
struct PythonSpacing;

impl serde_json::ser::Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// `{% generation %}…{% endgeneration %}`, a tag of transformers that marks what to train on, prints its contents.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("endgeneration") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let name = tag.trim_start_matches(['-', '+']).trim_start();
        let lead = tag.len() - name.len();
        for (word, instead) in [("endgeneration", "endif"), ("generation", "if true")] {
            let Some(after) = name.strip_prefix(word) else { continue };
            if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
                out.push_str(&tag[..lead]);
                out.push_str(instead);
                rest = after;
                break;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The usual fields of C's `strftime`, in UTC.
fn strftime(format: &str, unix_time_s: u64) -> Result<String, String> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, second) = (unix_time_s / 86_400, unix_time_s % 86_400);
    let (year, month, day, day_of_year) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[(days % 7) as usize];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut field = chars.next();
        let bare = field == Some('-');
        if bare {
            field = chars.next();
        }
        let number = |value: u64| if bare { value.to_string() } else { format!("{value:02}") };
        out.push_str(&match field {
            Some('Y') => year.to_string(),
            Some('y') => number(year % 100),
            Some('m') => number(month),
            Some('d') => number(day),
            Some('e') => format!("{day:2}"),
            Some('H') => number(hour),
            Some('I') => number((hour + 11) % 12 + 1),
            Some('M') => number(minute),
            Some('S') => number(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b') => month_name[..3].to_owned(),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('j') if bare => day_of_year.to_string(),
            Some('j') => format!("{day_of_year:03}"),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('%') => "%".to_owned(),
            other => {
                return Err(format!("strftime_now: unknown field %{}", other.map(String::from).unwrap_or_default()));
            }
        });
    }
    Ok(out)
}

/// Year, month, day and day of the year of a day counted from 1970-01-01.
fn civil(mut days: u64) -> (u64, u64, u64, u64) {
    // 400 years repeat: taken out at once, then year by year and month by month.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let in_year = |year| 365 + u64::from(leap(year));
    while days >= in_year(year) {
        days -= in_year(year);
        year += 1;
    }
    let day_of_year = days + 1;
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1, day_of_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        // `date -u -d @N +FORMAT`
        let at = |time, format| strftime(format, time).expect("a known format");
        assert_eq!(at(0, "%A %d %B %Y %H:%M:%S %j"), "Thursday 01 January 1970 00:00:00 001");
        assert_eq!(at(951_782_399, "%a %-d %b %y %I:%M %p"), "Mon 28 Feb 00 11:59 PM");
        assert_eq!(at(951_782_400, "%Y-%m-%d"), "2000-02-29");
        assert_eq!(at(1_735_689_599, "%F %j"), "2024-12-31 366");
        assert_eq!(at(4_107_542_400, "%F %A"), "2100-03-01 Monday");
        assert!(strftime("%Q", 0).is_err());
    }

    #[test]
    fn generation_tags_print_their_contents() {
        let source = "{% if a %}{%- generation -%} x {%- endgeneration %}{% endif %} generation";
        assert_eq!(without_generation_tags(source), "{% if a %}{%- if true -%} x {%- endif %}{% endif %} generation");
    }
}
