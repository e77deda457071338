//! Event streams.

#[path = "../sse/access.rs"]
mod access;
#[path = "../sse/life.rs"]
mod life;
#[path = "../sse/live.rs"]
mod live;
#[path = "../sse/reader.rs"]
mod reader;
#[path = "../sse/replay.rs"]
mod replay;
