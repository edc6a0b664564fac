//! A report as one page that needs nothing else.

use super::Report;
use crate::error::{Error, Result};
use minijinja::{AutoEscape, Environment, Value, context};

/// Where c(k) is drawn, in units of the picture: left, right, bottom, top.
const PLOT: [f64; 4] = [60.0, 420.0, 210.0, 25.0];

impl Report {
    /// The page.
    pub fn to_html(&self) -> Result<String> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.add_filter("fixed", |value: Value, digits: usize| {
            f64::try_from(value).map_or_else(|_| "–".to_owned(), |value| format!("{value:.digits$}"))
        });
        let speedups =
            self.categories.iter().map(|row| &row.figures).chain(self.overall.iter().map(|row| &row.figures));
        let widest = speedups.filter_map(|figures| figures.speedup).fold(1.0, f64::max);
        let page = environment
            .render_str(include_str!("report.html"), context! { report => self, widest, curve => self.curve() });
        page.map_err(|error| Error::Io { what: "the page of the report".to_owned(), reason: error.to_string() })
    }

    /// Points of c(k), columns on a logarithmic axis.
    fn curve(&self) -> Vec<Value> {
        let [left, right, bottom, top] = PLOT;
        let Some((&most, _)) = self.verify_cost.last_key_value().filter(|_| self.verify_cost.len() > 1) else {
            return Vec::new();
        };
        let highest = self.verify_cost.values().copied().fold(1.0, f64::max);
        let point = |(&k, &c): (&usize, &f64)| {
            let x = left + (right - left) * (k as f64).ln() / (most as f64).ln();
            context! { k, c, x, y => bottom - (bottom - top) * c / highest }
        };
        self.verify_cost.iter().map(point).collect()
    }
}
