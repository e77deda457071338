//! Log lines on stderr: their format, their level, and changing the level while the server runs.
//!
//! Fields carry the code's names (`app_id`, `socket_id`, `channel`). Secrets are never logged, payloads never above
//! trace.

use std::io::{self, IsTerminal};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat};

/// The process's logs; keep it to change their level.
#[derive(Debug)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    format: LogFormat,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error("log level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("logs are already set up")]
    AlreadySet(#[from] tracing::subscriber::SetGlobalDefaultError),
    #[error("the log level cannot be changed any more: {0}")]
    Gone(#[from] reload::Error),
}

type BoxedLayer<S> = Box<dyn Layer<S> + Send + Sync>;
type Filtered = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

impl Logs {
    /// Starts logging for the whole process; once.
    pub fn start(config: &LogConfig) -> Result<Self, LogsError> {
        let (filter, handle) = reload::Layer::new(parse(&config.level)?);
        let format = settle(config.format, io::stderr().is_terminal());
        tracing::subscriber::set_global_default(Registry::default().with(filter).with(lines(format)))?;
        Ok(Logs { filter: handle, format })
    }

    /// What `auto` turned out to be.
    pub fn format(&self) -> LogFormat {
        self.format
    }

    pub fn set_level(&self, level: &str) -> Result<(), LogsError> {
        Ok(self.filter.reload(parse(level)?)?)
    }
}

fn parse(level: &str) -> Result<EnvFilter, LogsError> {
    Ok(EnvFilter::builder().parse(level)?)
}

fn settle(format: LogFormat, is_terminal: bool) -> LogFormat {
    match format {
        LogFormat::Auto if is_terminal => LogFormat::Pretty,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    }
}

/// One line for each event, whatever the format: log collectors split at newlines.
fn lines(format: LogFormat) -> BoxedLayer<Filtered> {
    let layer = fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Compact => layer.compact().with_ansi(false).with_target(false).boxed(),
        // https://no-color.org
        LogFormat::Pretty | LogFormat::Auto => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            layer.with_ansi(io::stderr().is_terminal() && !no_color).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_pretty_on_a_terminal_and_json_elsewhere() {
        assert_eq!(settle(LogFormat::Auto, true), LogFormat::Pretty);
        assert_eq!(settle(LogFormat::Auto, false), LogFormat::Json);
        assert_eq!(settle(LogFormat::Compact, true), LogFormat::Compact);
    }

    #[test]
    fn a_filter_that_means_nothing_is_an_error() {
        assert!(parse("info,tidewire::hub=debug").is_ok());
        assert!(matches!(parse("tidewire=loud"), Err(LogsError::Filter(_))));
    }
}
