//! What is wrong with a configuration, said so that it can be mended without the manual.

use std::fmt;
use std::path::PathBuf;

/// One thing to mend: where, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `apps[0].secret`, `TIDEWIRE_SERVER__LISTEN` or `--listen`; empty for the file as a whole.
    pub at: String,
    pub text: String,
}

/// Everything that is wrong at once, so that nobody has to fix a file one start at a time.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    /// The file that was read, if there was one.
    pub source_file: Option<PathBuf>,
    pub problems: Vec<Problem>,
}

impl Problem {
    pub fn new(at: impl Into<String>, text: impl Into<String>) -> Self {
        Problem { at: at.into(), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() { f.write_str(&self.text) } else { write!(f, "{}: {}", self.at, self.text) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source_file, self.problems.len()) {
            (Some(file), 1) => write!(f, "the configuration ({}) has a problem:", file.display())?,
            (Some(file), n) => write!(f, "the configuration ({}) has {n} problems:", file.display())?,
            (None, 1) => f.write_str("the configuration has a problem:")?,
            (None, n) => write!(f, "the configuration has {n} problems:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// The candidate a mistyped `word` was most likely meant to be, if any is close.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let allowed = (lower.len() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&lower, &c.to_lowercase()), c))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_letters_find_the_word() {
        assert_eq!(nearest("secert", ["key", "secret", "name"]), Some("secret"));
        assert_eq!(nearest("Listen", ["listen"]), Some("listen"));
    }

    #[test]
    fn an_unrelated_word_finds_nothing() {
        assert_eq!(nearest("webhooks", ["key", "secret", "name"]), None);
    }
}
