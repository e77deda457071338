//! Which app a command speaks for: the flags' or one of the configuration's.

use std::convert::Infallible;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use tidewire_protocol::SigningKey;

use super::{Failure, load_quietly};
use crate::config::{Config, Secret};

/// The flags that choose an app and a server.
#[derive(Debug, Args)]
pub struct AppFlags {
    /// The server [default: the address in the configuration]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Id of the app [default: the first of the configuration]
    #[arg(long, value_name = "ID")]
    pub app: Option<String>,
    /// Key of an app that is not in the configuration; wants --secret, too
    #[arg(long, requires = "secret")]
    key: Option<String>,
    /// Its secret. Other users of this machine can see it in the list of processes
    #[arg(long, requires = "key", value_parser = |text: &str| Ok::<_, Infallible>(Secret::new(text)))]
    secret: Option<Secret>,
    /// Configuration file
    #[arg(short, long, value_name = "PATH")]
    config: Option<PathBuf>,
}

/// An app as a publisher knows it.
#[derive(Debug)]
pub struct Credentials {
    pub app_id: String,
    pub key: String,
    secret: Secret,
}

impl AppFlags {
    /// The configuration (for the address) and the app's credentials; `in_path` is an app id that a path names.
    pub fn credentials(&self, in_path: Option<&str>) -> Result<(Config, Credentials), Failure> {
        let config = load_quietly(self.config.as_ref())?.config;
        let wanted = self.app.as_deref().or(in_path);
        let credentials = match (&self.key, &self.secret) {
            (Some(key), Some(secret)) => {
                let known =
                    config.apps.iter().find(|app| app.credentials.iter().any(|pair| pair.key == *key));
                let app_id = wanted.or(known.map(|app| app.id.as_str()));
                let app_id =
                    app_id.context("--key names an app that is not in the configuration: add --app ID")?;
                Credentials { app_id: app_id.to_owned(), key: key.clone(), secret: secret.clone() }
            }
            _ => of_config(&config, wanted)?,
        };
        Ok((config, credentials))
    }
}

fn of_config(config: &Config, wanted: Option<&str>) -> anyhow::Result<Credentials> {
    let app = match wanted {
        Some(id) => config.apps.iter().find(|app| app.id == id),
        None => config.apps.first(),
    };
    let Some((app, pair)) = app.and_then(|app| Some((app, app.credentials.first()?))) else {
        let ids: Vec<&str> = config.apps.iter().map(|app| app.id.as_str()).collect();
        bail!("no app {} in the configuration, it has {}", wanted.unwrap_or_default(), ids.join(", "));
    };
    Ok(Credentials { app_id: app.id.clone(), key: pair.key.clone(), secret: pair.secret.clone() })
}

impl Credentials {
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::new(self.secret.expose())
    }
}
