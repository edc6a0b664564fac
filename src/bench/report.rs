//! What a bench found: rows by category and configuration, as JSON and as a table.

use super::profile::{VerifyCost, cost_line};
use super::{Arm, Mismatch, Options, difference};
use crate::error::{Error, Result};
use crate::plan::DeviceInfo;
use crate::speculate::accept::Exactness;
use crate::speculate::outcome::Tally;
use crate::summary::SpeculationSummary;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

/// Positions that a line of the table has room for; JSON has all.
const SHOWN_POSITIONS: usize = 8;

/// One answer.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Its tokens, the end token included.
    pub(super) answer: Vec<u32>,
    /// What its rounds took.
    pub(super) decode_ms: f64,
    /// What speculation did.
    pub(super) speculation: SpeculationSummary,
}

impl Run {
    fn tokens_per_second(&self) -> f64 {
        self.answer.len() as f64 / self.decode_ms.max(1e-3) * 1e3
    }
}

/// A speculative run beside the plain run just before it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    /// Rate of the speculative run over that of the plain one.
    pub speedup: f64,
    /// Rate of the plain run; `None` where times are assumed.
    pub plain_tokens_per_second: Option<f64>,
    /// Rate of the speculative run.
    pub tokens_per_second: Option<f64>,
    /// What the speed-up would be at this device's costs with draft lengths that know the text; `None` where no recording can
    /// tell.
    pub oracle_speedup: Option<f64>,
}

impl Timing {
    pub(super) fn of(plain: &Run, found: &Run) -> Timing {
        let (plain, found) = (plain.tokens_per_second(), found.tokens_per_second());
        Timing {
            plain_tokens_per_second: Some(plain),
            tokens_per_second: Some(found),
            ..Timing::assumed(found / plain)
        }
    }

    /// Of times in an unknown unit.
    pub(super) fn assumed(speedup: f64) -> Timing {
        Timing { speedup, plain_tokens_per_second: None, tokens_per_second: None, oracle_speedup: None }
    }

    pub(super) fn with_oracle(self, speedup: f64) -> Timing {
        Timing { oracle_speedup: Some(speedup), ..self }
    }

    /// Medians, each for itself.
    fn median(all: &[Timing]) -> Option<Timing> {
        let by = |field: fn(&Timing) -> Option<f64>| median(all.iter().filter_map(field).collect());
        Some(Timing {
            speedup: by(|timing| Some(timing.speedup))?,
            plain_tokens_per_second: by(|timing| timing.plain_tokens_per_second),
            tokens_per_second: by(|timing| timing.tokens_per_second),
            oracle_speedup: by(|timing| timing.oracle_speedup),
        })
    }
}

/// Milliseconds of a round, on average.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct RoundTime {
    /// Drafting: the host's work, and passes of draft models that have a submit of their own.
    pub draft: f64,
    /// The verify pass from submit to read-back, with draft steps inside it.
    pub verify: f64,
    /// The rest: accepting, learning, text.
    pub host: f64,
}

/// Figures of some runs of one configuration, all repeats together.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// Median; of a prompt over its repeats, of more over their prompts. `None` where nothing was timed.
    pub speedup: Option<f64>,
    /// The smallest and the largest of what that is the median of.
    pub speedup_range: Option<[f64; 2]>,
    /// Median of the plain runs.
    pub plain_tokens_per_second: Option<f64>,
    /// Median of the speculative runs.
    pub tokens_per_second: Option<f64>,
    /// Median of the speed-ups at this device's costs with draft lengths that know the text; `None` where no recording tells.
    pub oracle_speedup: Option<f64>,
    /// `speedup` as a share of it.
    pub share_of_oracle: Option<f64>,
    /// Where a round's time goes, in milliseconds; `None` where nothing was measured.
    pub round_ms: Option<RoundTime>,
    /// Tokens by passes of the target after prefill, those without a draft included; 1 is plain decoding.
    pub mean_acceptance_length: f64,
    /// The mean of the prompts' own mean acceptance lengths: each prompt counts the same, where above each pass does.
    pub mean_of_prompts: f64,
    /// Accepted by drafted at each depth of the tree, depth 1 first.
    pub acceptance_by_position: Vec<f64>,
    /// The counts behind it.
    pub by_position: Vec<Tally>,
    /// Drafted and accepted by drafter.
    pub drafters: BTreeMap<&'static str, Tally>,
    /// Tokens written, end tokens included.
    pub tokens: u64,
    /// Passes of the target after prefill.
    pub rounds: u64,
    /// Those of them that checked a draft.
    pub drafted_rounds: u64,
    /// Passes of the target after prefill by tokens.
    pub calls_per_token: f64,
}

impl Figures {
    fn of<'a>(prompts: impl IntoIterator<Item = &'a Measured>) -> Figures {
        let mut figures = Figures::default();
        let mut lengths = Vec::new();
        let mut ms = RoundTime::default();
        for prompt in prompts {
            let (tokens, rounds) = (figures.tokens, figures.rounds);
            for run in &prompt.runs {
                let SpeculationSummary { draft_ms, verify_ms, .. } = run.speculation;
                ms.draft += draft_ms;
                ms.verify += verify_ms;
                ms.host += run.decode_ms - draft_ms - verify_ms;
                figures.tokens += run.answer.len() as u64;
                figures.rounds += run.speculation.rounds;
                figures.drafted_rounds += run.speculation.drafted_rounds;
                let depths = figures.by_position.len().max(run.speculation.by_position.len());
                figures.by_position.resize(depths, Tally::default());
                for (sum, tally) in figures.by_position.iter_mut().zip(&run.speculation.by_position) {
                    sum.add(*tally);
                }
                for (name, tally) in &run.speculation.by_drafter {
                    figures.drafters.entry(name).or_default().add(*tally);
                }
            }
            lengths.push(share(figures.tokens - tokens, figures.rounds - rounds));
        }
        let per_round = |ms: f64| ms / figures.rounds as f64;
        figures.round_ms = (figures.rounds > 0).then(|| RoundTime {
            draft: per_round(ms.draft),
            verify: per_round(ms.verify),
            host: per_round(ms.host).max(0.0),
        });
        figures.mean_acceptance_length = share(figures.tokens, figures.rounds);
        figures.mean_of_prompts = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        figures.calls_per_token = share(figures.rounds, figures.tokens);
        figures.acceptance_by_position = figures.by_position.iter().map(|t| share(t.accepted, t.drafted)).collect();
        figures
    }

    fn timed(mut self, timings: &[Timing]) -> Figures {
        if let Some(median) = Timing::median(timings) {
            self.speedup = Some(median.speedup);
            self.plain_tokens_per_second = median.plain_tokens_per_second;
            self.tokens_per_second = median.tokens_per_second;
            self.oracle_speedup = median.oracle_speedup;
            self.share_of_oracle = median.oracle_speedup.map(|oracle| median.speedup / oracle);
            let speedups = timings.iter().map(|timing| timing.speedup);
            self.speedup_range =
                Some(speedups.fold([f64::INFINITY, 0.0], |[low, high], speedup| [low.min(speedup), high.max(speedup)]));
        }
        self
    }
}

/// One prompt with one configuration.
#[derive(Debug, Clone, Serialize)]
pub struct PromptRow {
    /// Name of the prompt.
    pub id: String,
    /// Whether every run gave the tokens of plain decoding; `None` where the rule does not promise it.
    pub same_tokens: Option<bool>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// One category with one configuration.
#[derive(Debug, Clone, Serialize)]
pub struct CategoryRow {
    /// Name of the category.
    pub category: String,
    /// Name of the configuration.
    pub config: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Its prompts.
    pub prompts: Vec<PromptRow>,
}

/// All prompts with one configuration.
#[derive(Debug, Clone, Serialize)]
pub struct Overall {
    /// Name of the configuration.
    pub config: String,
    /// What the text is worth against plain decoding.
    pub exactness: Option<Exactness>,
    /// Why speculation was on or off.
    pub reason: String,
    /// Geometric mean of the prompts' speed-ups.
    pub geomean_speedup: Option<f64>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name of the suite.
    pub suite: String,
    /// Name of the model.
    pub model: String,
    /// Where it ran.
    pub device: DeviceInfo,
    /// What decides the bits.
    pub system_fingerprint: String,
    /// Of every run.
    pub temperature: f32,
    /// Of every run.
    pub seed: u64,
    /// Timed pairs for each configuration and prompt.
    pub repeats: usize,
    /// By category, then by configuration.
    pub categories: Vec<CategoryRow>,
    /// By configuration.
    pub overall: Vec<Overall>,
    /// Those of `overall` that are plain decoding against itself, where the gain must vanish.
    pub controls: Vec<Overall>,
    /// Geometric mean of the prompts' speed-ups with the first configuration.
    pub geomean_speedup: Option<f64>,
    /// c(k): cost of verifying k columns, the root included, over one; the first of `verify_cost_at` where that was measured.
    pub verify_cost: BTreeMap<usize, f64>,
    /// The same by tokens in the KV cache; empty where costs are assumed.
    pub verify_cost_at: VerifyCost,
    /// Texts that differ from plain decoding although they must not.
    pub mismatches: Vec<Mismatch>,
}

impl Report {
    /// An error where a text differs that must not.
    pub fn check(&self) -> Result<()> {
        let Some(Mismatch { id, config, difference }) = self.mismatches.first() else { return Ok(()) };
        Err(Error::Mismatch {
            config: config.clone(),
            prompt: id.clone(),
            at: difference.at,
            plain: difference.plain,
            found: difference.found,
            runs: self.mismatches.len(),
        })
    }
}

/// Runs of one prompt with one configuration.
struct Measured {
    category: String,
    id: String,
    same_tokens: Option<bool>,
    runs: Vec<Run>,
    timings: Vec<Timing>,
}

/// Collects runs.
pub(super) struct Builder<'a> {
    arms: &'a [Arm],
    /// By arm, prompts in order.
    measured: Vec<Vec<Measured>>,
    mismatches: Vec<Mismatch>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(arms: &'a [Arm]) -> Builder<'a> {
        Builder { arms, measured: arms.iter().map(|_| Vec::new()).collect(), mismatches: Vec::new() }
    }

    /// Whether a text is that of plain decoding; notes where it is not.
    pub(super) fn compare(&mut self, id: &str, config: &str, plain: &[u32], found: &[u32]) -> bool {
        let Some(difference) = difference(plain, found) else { return true };
        self.mismatches.push(Mismatch { id: id.to_owned(), config: config.to_owned(), difference });
        false
    }

    /// Adds a run; the runs of a prompt with one arm come after one another.
    pub(super) fn add(
        &mut self,
        category: &str,
        id: &str,
        arm: usize,
        run: &Run,
        timing: Option<Timing>,
        equal: Option<bool>,
    ) {
        let all = &mut self.measured[arm];
        if all.last().is_none_or(|last| last.id != id || last.category != category) {
            let (category, id) = (category.to_owned(), id.to_owned());
            all.push(Measured { category, id, same_tokens: equal, runs: Vec::new(), timings: Vec::new() });
        }
        if let Some(last) = all.last_mut() {
            last.same_tokens = last.same_tokens.zip(equal).map(|(all, equal)| all && equal);
            last.runs.push(run.clone());
            last.timings.extend(timing);
        }
    }

    /// The report; what it is about is left open.
    pub(super) fn report(self, options: &Options) -> Report {
        let mut names: Vec<&str> = Vec::new();
        for measured in self.measured.iter().flatten() {
            if !names.contains(&measured.category.as_str()) {
                names.push(&measured.category);
            }
        }
        let rows = names.iter().flat_map(|name| {
            self.arms.iter().zip(&self.measured).map(|(arm, all)| {
                let prompts: Vec<&Measured> = all.iter().filter(|prompt| prompt.category == *name).collect();
                CategoryRow {
                    category: (*name).to_owned(),
                    config: arm.name.clone(),
                    figures: pooled(&prompts),
                    prompts: prompts.into_iter().map(prompt_row).collect(),
                }
            })
        });
        let overall: Vec<Overall> = self.arms.iter().zip(&self.measured).map(|(arm, all)| overall(arm, all)).collect();
        Report {
            suite: String::new(),
            model: String::new(),
            device: DeviceInfo { kind: "none", name: String::new(), software: false },
            system_fingerprint: String::new(),
            temperature: options.sampling.temperature,
            seed: options.sampling.seed,
            repeats: options.repeats,
            categories: rows.collect(),
            geomean_speedup: overall.first().and_then(|row| row.geomean_speedup),
            controls: overall.iter().filter(|row| row.config == "off").cloned().collect(),
            overall,
            verify_cost: BTreeMap::new(),
            verify_cost_at: VerifyCost::new(),
            mismatches: self.mismatches,
        }
    }
}

fn prompt_row(prompt: &Measured) -> PromptRow {
    PromptRow {
        id: prompt.id.clone(),
        same_tokens: prompt.same_tokens,
        figures: Figures::of([prompt]).timed(&prompt.timings),
    }
}

/// Counts are summed; times are medians over the prompts' medians.
fn pooled(prompts: &[&Measured]) -> Figures {
    let timings: Vec<Timing> = prompts.iter().filter_map(|prompt| Timing::median(&prompt.timings)).collect();
    Figures::of(prompts.iter().copied()).timed(&timings)
}

fn overall(arm: &Arm, all: &[Measured]) -> Overall {
    let prompts: Vec<&Measured> = all.iter().collect();
    let medians: Vec<f64> = all.iter().filter_map(|p| Timing::median(&p.timings)).map(|t| t.speedup).collect();
    let logs: f64 = medians.iter().map(|speedup| speedup.ln()).sum();
    let runs = || all.iter().flat_map(|prompt| &prompt.runs).map(|run| &run.speculation);
    Overall {
        config: arm.name.clone(),
        exactness: runs().next().map(|speculation| speculation.exactness),
        reason: reason(&runs().map(|speculation| speculation.reason.as_str()).collect::<Vec<_>>()),
        geomean_speedup: (!medians.is_empty()).then(|| (logs / medians.len() as f64).exp()),
        figures: pooled(&prompts),
    }
}

/// Of the reasons that answers ended with, one that says on if there is one, and how many said off.
fn reason(all: &[&str]) -> String {
    let (off, on): (Vec<&str>, Vec<&str>) = all.iter().partition(|reason| reason.starts_with("off"));
    match (off.len(), on.first()) {
        (0, Some(&on)) => on.to_owned(),
        (count, Some(on)) => format!("{on}; off at the end of {count} of {} answers", all.len()),
        (_, None) => off.first().map_or_else(String::new, |&off| off.to_owned()),
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} on {}: {}", self.model, self.device.kind, self.device.name)?;
        writeln!(
            f,
            "tokens/pass: mean acceptance length, tokens by all passes of the target after prefill; per prompt: its mean; of \
             oracle: the speed-up as a share of that with draft lengths that know the text"
        )?;
        for overall in &self.overall {
            let exactness = overall.exactness.map_or("", Exactness::name);
            writeln!(f, "\n{} ({exactness}; {})", overall.config, overall.reason)?;
            let (a, b, c) = ("speed-up (range)", "of oracle", "tokens/s, off and on");
            writeln!(
                f,
                "  {:<14} {:>6} {:>6}  {:>11} {:>10} {:>12}  {a:<18} {b:<12} {c:<21} {:<42} accepted of drafted",
                "category", "tokens", "passes", "tokens/pass", "per prompt", "passes/token", "accepted by position",
            )?;
            let rows = self.categories.iter().filter(|row| row.config == overall.config);
            for row in rows {
                writeln!(f, "  {:<14} {}", row.category, row.figures)?;
            }
            writeln!(f, "  {:<14} {}", "all", overall.figures)?;
            if let Some(geomean) = overall.geomean_speedup {
                writeln!(f, "  geometric mean of the prompts' speed-ups: {geomean:.2}")?;
            }
        }
        if self.verify_cost_at.is_empty() {
            writeln!(f, "\n{}", cost_line(&self.verify_cost))?;
        }
        for (context, costs) in &self.verify_cost_at {
            write!(f, "\nafter {context} tokens, {}", cost_line(costs))?;
        }
        writeln!(f)?;
        for Mismatch { id, config, difference } in &self.mismatches {
            let of = |token: Option<u32>| token.map_or("the end".to_owned(), |token| token.to_string());
            let (plain, found) = (of(difference.plain), of(difference.found));
            writeln!(f, "MISMATCH {id}, {config}: token {} is {found}, plain decoding gives {plain}", difference.at)?;
        }
        Ok(())
    }
}

impl Display for Figures {
    /// One line of the table, after its name.
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let speedup = match (self.speedup, self.speedup_range) {
            (Some(speedup), Some([low, high])) => format!("{speedup:.2} ({low:.2} to {high:.2})"),
            _ => "-".to_owned(),
        };
        let rates = match (self.plain_tokens_per_second, self.tokens_per_second) {
            (Some(plain), Some(rate)) => format!("{plain:.1}, {rate:.1}"),
            _ => "-".to_owned(),
        };
        let oracle = match (self.oracle_speedup, self.share_of_oracle) {
            (Some(oracle), Some(share)) => format!("{share:.2} of {oracle:.2}"),
            _ => "-".to_owned(),
        };
        let drafters = self.drafters.iter().map(|(name, tally)| format!("{name} {}/{}", tally.accepted, tally.drafted));
        let drafters: Vec<String> = drafters.collect();
        let shown = self.acceptance_by_position.iter().take(SHOWN_POSITIONS);
        let positions: Vec<String> = shown.map(|share| format!("{share:.2}")).collect();
        let more = if self.acceptance_by_position.len() > SHOWN_POSITIONS { " …" } else { "" };
        let line = format!(
            "{:>6} {:>6}  {:>11.2} {:>10.2} {:>12.2}  {speedup:<18} {oracle:<12} {rates:<21} {:<42} {}",
            self.tokens,
            self.rounds,
            self.mean_acceptance_length,
            self.mean_of_prompts,
            self.calls_per_token,
            positions.join(" ") + more,
            drafters.join(", "),
        );
        f.write_str(line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::SpeculationConfig;
    use crate::speculate::methods::Setup;

    fn run(answer: &[u32], decode_ms: f64, tallies: &[(u64, u64)]) -> Run {
        let config: SpeculationConfig = "drafter=ngram".parse().expect("valid");
        let mut speculator = config.speculator(Setup::new(&config)).expect("valid");
        let totals = &mut speculator.totals;
        totals.by_depth = tallies.iter().map(|&(drafted, accepted)| Tally { drafted, accepted }).collect();
        totals.by_depth.iter().for_each(|&tally| totals.all.add(tally));
        totals.by_drafter = vec![totals.all];
        totals.rounds = answer.len() as u64 - totals.all.accepted;
        totals.drafted_rounds = totals.rounds.min(1);
        totals.verified = totals.rounds + totals.all.drafted;
        Run { answer: answer.to_vec(), decode_ms, speculation: SpeculationSummary::of(&speculator, 0, 0) }
    }

    fn two_arms() -> Vec<Arm> {
        ["auto", "drafter=ngram"].iter().map(|text| text.parse().expect("valid")).collect()
    }

    #[test]
    fn one_answer_that_ended_off_does_not_speak_for_all() {
        assert_eq!(
            reason(&["on: suffix", "off: 1", "on: suffix", "off: 2"]),
            "on: suffix; off at the end of 2 of 4 answers"
        );
        assert_eq!(reason(&["on: suffix"]), "on: suffix");
        assert_eq!(reason(&["off: 1", "off: 2"]), "off: 1");
        assert_eq!(reason(&[]), "");
    }

    #[test]
    fn counts_are_pooled_and_speedups_are_medians() {
        let arms = two_arms();
        let options = Options { arms: arms.clone(), repeats: 3, ..Options::default() };
        let mut builder = Builder::new(&arms);
        let plain = run(&[0; 8], 80.0, &[]);
        for (id, times) in [("a-1", [40.0, 20.0, 80.0]), ("a-2", [80.0, 80.0, 80.0])] {
            for ms in times {
                let found = run(&[0; 8], ms, &[(4, 3), (3, 1)]);
                builder.add("a", id, 0, &found, Some(Timing::of(&plain, &found)), Some(true));
                builder.add("a", id, 1, &plain, None, None);
            }
        }
        builder.add("a", "a-3", 1, &run(&[0; 8], 80.0, &[(8, 6)]), None, None);
        let report = builder.report(&options);
        let row = &report.categories[0];
        assert_eq!((row.config.as_str(), row.prompts.len()), ("auto", 2));
        // Six runs of 8 tokens in 4 passes.
        assert_eq!((row.figures.tokens, row.figures.rounds, row.figures.drafted_rounds), (48, 24, 6));
        assert_eq!((row.figures.mean_acceptance_length, row.figures.calls_per_token), (2.0, 0.5));
        assert_eq!(row.figures.acceptance_by_position, [0.75, 1.0 / 3.0]);
        assert_eq!(row.figures.drafters["ngram"], Tally { drafted: 42, accepted: 24 });
        // Two prompts of 24 tokens in as many passes, one of 8 in 2; three prompts that count the same.
        let uneven = &report.categories[1].figures;
        assert_eq!((uneven.mean_acceptance_length, uneven.mean_of_prompts), (56.0 / 50.0, 2.0));
        let first = &row.prompts[0].figures;
        assert_eq!((first.speedup, first.speedup_range), (Some(2.0), Some([1.0, 4.0])));
        assert_eq!(row.figures.speedup, Some(1.5), "the median of 2 and 1");
        assert!((report.geomean_speedup.expect("timed") - 2f64.sqrt()).abs() < 1e-12);
        assert_eq!(report.categories[1].figures.speedup, None, "nothing was timed");
        let table = report.to_string();
        assert!(table.contains("ngram 24/42") && table.contains("0.75 0.33"), "{table}");
        assert!(report.check().is_ok());
    }

    #[test]
    fn a_text_that_differs_is_an_error() {
        let arms = two_arms();
        let mut builder = Builder::new(&arms);
        assert!(builder.compare("a-1", "auto", &[1, 2, 3], &[1, 2, 3]));
        assert!(!builder.compare("a-2", "auto", &[1, 2, 3], &[1, 2, 4]));
        let found = run(&[1, 2, 4], 1.0, &[]);
        builder.add("a", "a-2", 0, &found, None, Some(true));
        builder.add("a", "a-2", 0, &found, None, Some(false));
        builder.add("a", "a-2", 0, &found, None, Some(true));
        let report = builder.report(&Options { arms: arms.clone(), ..Options::default() });
        assert_eq!(report.categories[0].prompts[0].same_tokens, Some(false), "one run of three is enough");
        assert!(report.to_string().contains("MISMATCH a-2, auto: token 2 is 4, plain decoding gives 3"), "{report}");
        let error = report.check().expect_err("a mismatch");
        assert_eq!(error.code(), "mismatch");
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["mismatches"][0]["at"], 2);
    }
}
