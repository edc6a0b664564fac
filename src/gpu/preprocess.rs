//! The shaders' preprocessor: plain text in, plain WGSL out.
//!
//! - `#import name` puts `shaders/shared/name.wgsl` here, once;
//! - `#ifdef NAME … #else … #endif` keeps one of two pieces;
//! - `#repeat i N … #end` repeats its lines for `i` = 0 to N - 1; `N` is a number, a define or a `const N: u32 = …u;` above;
//! - `{NAME}` and `{i}` stand for values.
//!
//! Unrolled text and named accumulators are there because a local array with a dynamic index spills to memory on GPUs.

use std::collections::BTreeMap;

/// The values of one permutation: flags such as layout names have 1, sizes their size, types their name.
pub(super) type Defines = BTreeMap<&'static str, String>;

/// Shared pieces by name.
const SHARED: [(&str, &str); 6] = [
    ("params", include_str!("../../shaders/shared/params.wgsl")),
    ("layouts", include_str!("../../shaders/shared/layouts.wgsl")),
    ("quantise", include_str!("../../shaders/shared/quantise.wgsl")),
    ("order", include_str!("../../shaders/shared/order.wgsl")),
    ("seen", include_str!("../../shaders/shared/seen.wgsl")),
    ("rng", include_str!("../../shaders/shared/rng.wgsl")),
];

/// Expands a kernel's text. The message names the line at fault: shaders are part of this crate, so it is a bug of ours.
pub(super) fn preprocess(source: &str, defines: &Defines) -> Result<String, String> {
    let mut values: BTreeMap<String, String> =
        defines.iter().map(|(&name, value)| (name.to_owned(), value.clone())).collect();
    let mut imported = Vec::new();
    let mut lines = Vec::new();
    import(source, &mut imported, &mut lines)?;
    let mut out = String::new();
    expand(&lines, &mut values, &mut out)?;
    Ok(out)
}

fn import<'a>(source: &'a str, imported: &mut Vec<&'a str>, lines: &mut Vec<&'a str>) -> Result<(), String> {
    for line in source.lines() {
        let Some(name) = line.strip_prefix("#import ") else {
            lines.push(line);
            continue;
        };
        if imported.contains(&name) {
            continue;
        }
        imported.push(name);
        let (_, text) = SHARED
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| format!("#import {name}: no such file in shaders/shared"))?;
        import(text, imported, lines)?;
    }
    Ok(())
}

fn expand(lines: &[&str], values: &mut BTreeMap<String, String>, out: &mut String) -> Result<(), String> {
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first().copied() {
            Some("#ifdef") => {
                let name = words.get(1).ok_or("#ifdef without a name")?;
                let block = block_end(lines, at, "#endif")?;
                let otherwise = block.otherwise.unwrap_or(block.end);
                if values.contains_key(*name) {
                    expand(&lines[at + 1..otherwise], values, out)?;
                } else if otherwise < block.end {
                    expand(&lines[otherwise + 1..block.end], values, out)?;
                }
                at = block.end;
            }
            Some("#repeat") => {
                let [_, index, count] = words[..] else { return Err(format!("{line}: expected #repeat index count")) };
                let count = values.get(count).map_or(count, String::as_str);
                let count: u32 = count.parse().map_err(|_| format!("{line}: {count} is not a number"))?;
                let end = block_end(lines, at, "#end")?.end;
                for i in 0..count {
                    values.insert(index.to_owned(), i.to_string());
                    expand(&lines[at + 1..end], values, out)?;
                }
                values.remove(index);
                at = end;
            }
            Some(word) if word.starts_with('#') => return Err(format!("unexpected {line}")),
            _ => {
                let text = substitute(line, values);
                if let Some((name, value)) = constant(&text) {
                    values.insert(name.to_owned(), value.to_owned());
                }
                out.push_str(&text);
                out.push('\n');
            }
        }
        at += 1;
    }
    Ok(())
}

struct Block {
    otherwise: Option<usize>,
    end: usize,
}

/// The `#else` and the end that belong to the opening line at `start`.
fn block_end(lines: &[&str], start: usize, closing: &str) -> Result<Block, String> {
    let mut open = Vec::new();
    let mut otherwise = None;
    for (at, line) in lines.iter().enumerate().skip(start) {
        match line.split_whitespace().next() {
            Some("#ifdef") => open.push("#endif"),
            Some("#repeat") => open.push("#end"),
            Some("#else") if open.len() == 1 => otherwise = Some(at),
            Some(word @ ("#endif" | "#end")) => {
                if open.pop() != Some(word) {
                    return Err(format!("{}: closed by {word}", lines[start]));
                }
                if open.is_empty() {
                    return Ok(Block { otherwise, end: at });
                }
            }
            _ => {}
        }
    }
    Err(format!("{}: no {closing}", lines[start]))
}

/// `{NAME}` by value; other braces are WGSL's.
fn substitute(line: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        let value = from.find('}').and_then(|close| Some((close, values.get(&from[1..close])?)));
        match value {
            Some((close, value)) => {
                out.push_str(value);
                rest = &from[close + 1..];
            }
            None => {
                out.push('{');
                rest = &from[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// `const NAME: u32 = 12u;`
fn constant(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix("const ")?.split_once(": u32 = ")?;
    let value = value.strip_suffix("u;")?;
    value.parse::<u32>().ok().map(|_| (name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defines(names: &[&'static str], value: &str) -> Defines {
        names.iter().map(|&name| (name, value.to_owned())).collect()
    }

    #[test]
    fn repeats_nest_and_values_stand_in() {
        let source = "const N: u32 = 2u;\n#repeat r ROWS\n#repeat c N\nlet a{r}_{c} = {c}u;\n#end\n#end\nfn f() {}";
        let text = preprocess(source, &defines(&["ROWS"], "2")).expect("expands");
        assert_eq!(
            text,
            "const N: u32 = 2u;\nlet a0_0 = 0u;\nlet a0_1 = 1u;\nlet a1_0 = 0u;\nlet a1_1 = 1u;\nfn f() {}\n"
        );
    }

    #[test]
    fn ifdef_keeps_one_side() {
        let source = "#ifdef A\na\n#ifdef B\nb\n#endif\n#else\nc\n#endif";
        assert_eq!(preprocess(source, &defines(&["A"], "1")).as_deref(), Ok("a\n"));
        assert_eq!(preprocess(source, &defines(&["A", "B"], "1")).as_deref(), Ok("a\nb\n"));
        assert_eq!(preprocess(source, &Defines::new()).as_deref(), Ok("c\n"));
    }

    #[test]
    fn mistakes_are_named() {
        for source in ["#repeat i 2\nx", "#ifdef A\n#end", "#repeat i M\n#end", "#import nothing", "#elif"] {
            assert!(preprocess(source, &Defines::new()).is_err(), "{source}");
        }
    }
}
