//! What was measured, as a Markdown table, as JSON and as BENCHMARKS.md.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::procfs;
use crate::rounds::{Ratio, Rounds, median};

const BEGIN: &str = "<!-- begin: written by tidewire-bench -->";
const END: &str = "<!-- end: written by tidewire-bench -->";
const METHOD: &str = include_str!("method.md");

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    pub measurement: String,
    /// Which server.
    pub subject: String,
    pub figure: f64,
    pub unit: &'static str,
    /// Every round, in the unit of the figure.
    pub rounds: Vec<f64>,
    pub baseline: Option<Baseline>,
    pub mark: Option<Mark>,
}

/// The limit that was measured in the same rounds.
#[derive(Debug, Serialize)]
pub struct Baseline {
    pub name: &'static str,
    pub figure: f64,
    pub ratio: Ratio,
}

/// What the project wants of itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Mark {
    Figure { at_most: f64 },
    Ratio { at_most: f64 },
}

impl Row {
    pub fn single(measurement: impl Into<String>, subject: &str, figure: f64, unit: &'static str) -> Self {
        let (measurement, subject) = (measurement.into(), subject.to_owned());
        Row { measurement, subject, figure, unit, rounds: vec![figure], baseline: None, mark: None }
    }

    /// The median of a contender's rounds.
    pub fn median(
        measurement: impl Into<String>,
        subject: &str,
        rounds: &Rounds,
        contender: usize,
        unit: &'static str,
    ) -> Self {
        let row = Row::single(measurement, subject, rounds.median(contender), unit);
        Row { rounds: rounds.all(contender).to_vec(), ..row }
    }

    /// The median of figures that were formed round by round.
    pub fn of(measurement: impl Into<String>, subject: &str, figures: Vec<f64>, unit: &'static str) -> Self {
        Row { rounds: figures.clone(), ..Row::single(measurement, subject, median(&figures), unit) }
    }

    pub fn against(self, name: &'static str, rounds: &Rounds, contender: usize, limit: usize) -> Self {
        let baseline = Baseline { name, figure: rounds.median(limit), ratio: rounds.ratio(contender, limit) };
        Row { baseline: Some(baseline), ..self }
    }

    /// Marks are the project's own: other servers get none.
    pub fn mark(self, mark: Mark, ours: bool) -> Self {
        Row { mark: ours.then_some(mark), ..self }
    }

    pub fn met(&self) -> Option<bool> {
        match (self.mark?, &self.baseline) {
            (Mark::Figure { at_most }, _) => Some(self.figure <= at_most),
            (Mark::Ratio { at_most }, Some(baseline)) => Some(baseline.ratio.median <= at_most),
            (Mark::Ratio { .. }, None) => None,
        }
    }

    pub fn line(&self) -> String {
        let (limit, ratio) = match &self.baseline {
            Some(Baseline { name, figure, ratio }) => (
                format!("{} ({name})", short(*figure)),
                format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.lowest, ratio.highest),
            ),
            None => ("–".to_owned(), "–".to_owned()),
        };
        let mark = match self.mark {
            Some(Mark::Figure { at_most }) => format!("≤ {} {}", short(at_most), self.unit),
            Some(Mark::Ratio { at_most }) => format!("≤ {at_most:.2} ×"),
            None => "–".to_owned(),
        };
        let met = self.met().map_or("", |met| if met { "yes" } else { "**no**" });
        let (measurement, subject, figure) = (&self.measurement, &self.subject, short(self.figure));
        format!("| {measurement} | {subject} | {figure} {} | {limit} | {ratio} | {mark} | {met} |", self.unit)
    }
}

/// Three digits, or all in front of the point.
fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 1000.0 => {
            let whole = format!("{figure:.0}");
            let groups: Vec<&str> =
                whole.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap_or("")).collect();
            groups.join(",")
        }
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

pub fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| measurement | server | figure | limit in the same rounds | ratio, median (range) | pass mark | met |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        table.push_str(&row.line());
        table.push('\n');
    }
    table
}

/// `load` is the load average before the run.
pub fn json(rows: &[Row], load: f64) -> Result<String> {
    let report = serde_json::json!({ "date": today(), "machine": procfs::machine(), "load_average": load, "rows": rows });
    Ok(serde_json::to_string_pretty(&report)?)
}

/// Replaces what stands between the markers, or begins the file.
pub fn write_markdown(path: &Path, rows: &[Row], load: f64, command: &str) -> Result<()> {
    let (day, machine) = (today(), procfs::machine());
    let section = format!(
        "{BEGIN}\n\nMeasured {day} on {machine}; load average before the run {load:.1}.\n\
         Command: `{command}`.\n\n{}\n{METHOD}\n{END}",
        table(rows)
    );
    let text = match fs::read_to_string(path) {
        Ok(text) => replace_section(&text, &section).with_context(|| path.display().to_string())?,
        Err(_) => format!("# Benchmarks\n\n{section}\n"),
    };
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn replace_section(text: &str, section: &str) -> Result<String> {
    let (Some(begin), Some(end)) = (text.find(BEGIN), text.find(END)) else {
        bail!("the markers {BEGIN} and {END} are missing");
    };
    Ok(format!("{}{section}{}", &text[..begin], &text[end + END.len()..]))
}

/// The day in UTC, as `2026-01-31`.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = civil((seconds / 86_400) as i64);
    format!("{year}-{month:02}-{day:02}")
}

/// Days since 1970 to a date of the Gregorian calendar (Hinnant's algorithm: years begin in March).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let text = format!("# Ours\n{BEGIN}\nold\n{END}\nkept\n");
        let new = replace_section(&text, "new").unwrap();
        assert_eq!(new, "# Ours\nnew\nkept\n");
        assert!(replace_section("no markers", "new").is_err());
    }

    #[test]
    fn a_row_says_whether_its_mark_is_met() {
        let mut figures = [3.0, 2.0].into_iter().cycle();
        let rounds = Rounds::run(3, 2, |_| Ok(figures.next().unwrap())).unwrap();
        let row = |at_most, ours| {
            Row::median("m", "s", &rounds, 0, "µs")
                .against("bare", &rounds, 0, 1)
                .mark(Mark::Ratio { at_most }, ours)
        };
        assert_eq!(row(0.5, true).met(), Some(false));
        assert_eq!(row(1.5, true).met(), Some(true));
        assert_eq!(row(1.5, false).met(), None);
        assert!(row(1.5, true).line().starts_with("| m | s | "));
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            ["0.15", "7.10", "43.8", "979", "12,345"],
            [0.149, 7.1, 43.81, 979.2, 12345.1].map(short)[..]
        );
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_454), (2026, 1, 1));
    }
}
