//! What an operator sees of a running server: logs, metrics.

pub mod fanout_metrics;
pub mod logs;
pub mod metrics;
mod process;
pub mod replay_metrics;
