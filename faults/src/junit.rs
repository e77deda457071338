//! The verdicts as a JUnit report.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What became of a scenario.
pub enum Verdict {
    Passed,
    Skipped,
    Failed(String),
}

pub struct Case {
    pub name: String,
    pub seconds: f64,
    pub verdict: Verdict,
}

pub fn write(path: &Path, cases: &[Case]) -> Result<()> {
    let failed = cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed(_))).count();
    let skipped = cases.iter().filter(|case| matches!(case.verdict, Verdict::Skipped)).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuite name=\"faults\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\">\n",
        cases.len()
    );
    for Case { name, seconds, verdict } in cases {
        let body = match verdict {
            Verdict::Passed => String::new(),
            Verdict::Skipped => "<skipped/>".to_owned(),
            Verdict::Failed(why) => format!("<failure message=\"violated\">{}</failure>", escape(why)),
        };
        text += &format!(
            "  <testcase classname=\"faults\" name=\"{name}\" time=\"{seconds:.1}\">{body}</testcase>\n"
        );
    }
    text += "</testsuite>\n";
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn escape(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_reserves_is_escaped() {
        assert_eq!(escape("a < b && c\u{1b}[0m"), "a &lt; b &amp;&amp; c[0m");
    }
}
