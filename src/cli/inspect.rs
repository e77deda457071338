//! `check-config` and `default-config`: what would be in force, and what to start from.

use clap::Args;
use serde::Serialize;

use super::{Done, ServeFlags, print_bytes, print_line};
use crate::config::{
    self, AdminConfig, AppLimits, LogConfig, Origin, RedisConfig, ReplayConfig, ServerConfig,
};

#[derive(Debug, Args)]
pub struct DefaultConfigFlags {
    /// Print the JSON Schema of the file instead, for editors and CI
    #[arg(long)]
    schema: bool,
}

pub fn check_config(flags: &ServeFlags) -> Done {
    let loaded = flags.sources().load()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    if loaded.config.default_app {
        eprintln!("note: no app is configured, the built-in one (key app-key) would be offered on loopback");
    }
    if loaded.origins.get("redis.url") == Some(&Origin::Environment("REDIS_URL".to_owned())) {
        eprintln!("note: redis.url comes from REDIS_URL, for nothing else sets it");
    }
    match &loaded.config.source {
        Some(path) => eprintln!("{} is fine", path.display()),
        None => eprintln!("the configuration is fine (no file; environment, flags and defaults)"),
    }
    print_line(&config::effective(&loaded.config))
}

pub fn default_config(flags: &DefaultConfigFlags) -> Done {
    if flags.schema {
        return print_bytes(config::schema::render().as_bytes());
    }
    let document = Document {
        server: ServerConfig::default(),
        admin: AdminConfig::default(),
        log: LogConfig::default(),
        redis: RedisConfig::default(),
        replay: ReplayConfig::default(),
        limits: AppLimits::default(),
        apps: [FreshApp::new()],
    };
    print_line(&serde_json::to_string_pretty(&document).map_err(anyhow::Error::from)?)
}

/// In the order in which people read it.
#[derive(Serialize)]
struct Document {
    server: ServerConfig,
    admin: AdminConfig,
    log: LogConfig,
    redis: RedisConfig,
    replay: ReplayConfig,
    limits: AppLimits,
    apps: [FreshApp; 1],
}

#[derive(Serialize)]
struct FreshApp {
    id: String,
    name: &'static str,
    key: String,
    secret: String,
    allowed_origins: [String; 0],
    client_events: bool,
    replay: bool,
}

impl FreshApp {
    /// The id has digits only: several SDKs refuse any other (protocol 1.1).
    fn new() -> Self {
        FreshApp {
            id: rand::random_range(100_000..1_000_000_u32).to_string(),
            name: "my app",
            key: random_hex(10),
            secret: random_hex(32),
            allowed_origins: [],
            client_events: true,
            replay: false,
        }
    }
}

fn random_hex(bytes: usize) -> String {
    (0..bytes).map(|_| format!("{:02x}", rand::random::<u8>())).collect()
}
