//! The environment as a layer of the configuration: `TIDEWIRE_` and the path, with `__` between its words.
//!
//! A variable with this prefix that means nothing is refused, because it is a typing mistake that would otherwise
//! leave a default in force. An empty variable counts as absent: compose files pass those for what is not set.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::load::{Draft, Origin};
use super::problem::nearest;

const PREFIX: &str = "TIDEWIRE_";
const CONFIG: &str = "TIDEWIRE_CONFIG";
const APPS: &str = "TIDEWIRE_APPS";
const LOG: &str = "TIDEWIRE_LOG";
const APP_ID: &str = "TIDEWIRE_APP_ID";
const APP_KEY: &str = "TIDEWIRE_APP_KEY";
const APP_SECRET: &str = "TIDEWIRE_APP_SECRET";
const APP_SECRET_FILE: &str = "TIDEWIRE_APP_SECRET_FILE";
const APP_REPLAY: &str = "TIDEWIRE_APP_REPLAY";
const REDIS_URL: &str = "REDIS_URL";
/// Names that are not a path of the file.
const OTHERS: [&str; 8] = [CONFIG, APPS, LOG, APP_ID, APP_KEY, APP_SECRET, APP_SECRET_FILE, APP_REPLAY];
/// Secrets that may also stand in a file, which the variable with `_FILE` behind it names.
const SECRETS: [&str; 3] = ["redis.url", "redis.password", "redis.sentinel_password"];

pub type Environment = BTreeMap<String, String>;

/// What `name` is set to, if it is set to something.
pub fn get<'e>(environment: &'e Environment, name: &str) -> Option<&'e str> {
    environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// The file the environment points at.
pub fn config_file(environment: &Environment) -> Option<&str> {
    get(environment, CONFIG)
}

/// The files the environment keeps secrets in.
pub fn secret_files(environment: &Environment) -> impl Iterator<Item = &str> {
    let names = std::iter::once(APP_SECRET_FILE.to_owned()).chain(SECRETS.map(file_variable));
    names.filter_map(|name| get(environment, &name))
}

/// Lays everything the environment says over the draft.
pub fn apply(environment: &Environment, draft: &mut Draft) {
    for (name, value) in environment.iter().filter(|(_, value)| !value.is_empty()) {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let is_other =
            OTHERS.contains(&name.as_str()) || SECRETS.iter().any(|path| file_variable(path) == *name);
        if !is_other && !is_service_link(name, value) {
            apply_setting(draft, name, &rest.to_ascii_lowercase().replace("__", "."), value);
        }
    }
    for name in [LOG, "RUST_LOG"] {
        if let Some(filter) = get(environment, name) {
            draft.set("log.level", Value::from(filter), Origin::Environment(name.to_owned()));
        }
    }
    apply_secrets(environment, draft);
    apply_app_list(environment, draft);
    apply_one_app(environment, draft);
    apply_pusher_app(environment, draft);
    apply_app_replay(environment, draft);
}

fn apply_setting(draft: &mut Draft, name: &str, path: &str, value: &str) {
    match draft.schema.root().at(path) {
        Some(node) if node.is_section() => draft.problem(name, "is a section, name a setting in it with __"),
        Some(_) if path == "$schema" => {}
        Some(node) => {
            let value = node.read_text(value);
            draft.set(path, value, Origin::Environment(name.to_owned()));
        }
        None if path.starts_with("apps.") => {
            draft.problem(
                name,
                "apps cannot be set one by one; use TIDEWIRE_APPS with a JSON array, or the file",
            );
        }
        None => {
            let text = match nearest_name(draft, name) {
                Some(meant) => format!("unknown variable, did you mean {meant}?"),
                None => "unknown variable (TIDEWIRE_ names settings only)".to_owned(),
            };
            draft.problem(name, text);
        }
    }
}

/// Every variable that means something.
pub fn names(draft: &Draft) -> Vec<String> {
    let mut paths = draft.schema.paths();
    // Where two settings have the same name, the server's is the one that is meant more often.
    paths.sort_by_key(|path| !path.starts_with("server."));
    let settings = paths.iter().filter(|p| p.contains('.')).map(|p| variable(p));
    settings.chain(OTHERS.map(str::to_owned)).chain(SECRETS.map(file_variable)).collect()
}

/// The variable of a setting's path.
pub fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// The variable that names the file of a secret.
fn file_variable(path: &str) -> String {
    variable(path) + "_FILE"
}

fn nearest_name(draft: &Draft, name: &str) -> Option<String> {
    let names = names(draft);
    // `TIDEWIRE_LISTEN`, `TIDEWIRE_SERVER_LISTEN`: the setting's own name is right, its section is not.
    let rest = name.trim_start_matches(PREFIX);
    let ends_alike = |n: &&String| {
        let flat = n.trim_start_matches(PREFIX).replace("__", "_");
        flat == rest.replace("__", "_") || n.ends_with(&format!("__{rest}"))
    };
    let found = names.iter().find(ends_alike).map(String::as_str);
    found.or_else(|| nearest(name, names.iter().map(String::as_str))).map(str::to_owned)
}

/// Kubernetes adds such variables to every pod beside a Service called `tidewire` or `tidewire-…`, unless
/// `enableServiceLinks` is false. They are not ours, whatever they look like.
fn is_service_link(name: &str, value: &str) -> bool {
    if name.contains("__") {
        return false;
    }
    let numbered_port = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let (number, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        number.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].iter().any(|p| protocol.starts_with(p))
    });
    numbered_port
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
}

/// `TIDEWIRE_REDIS__PASSWORD_FILE` and the like.
fn apply_secrets(environment: &Environment, draft: &mut Draft) {
    for path in SECRETS {
        let name = file_variable(path);
        if let Some(secret) = read_file(environment, draft, &variable(path), &name) {
            draft.set(path, Value::from(secret), Origin::Environment(name));
        }
    }
}

/// `TIDEWIRE_APPS` takes the place of the file's list.
fn apply_app_list(environment: &Environment, draft: &mut Draft) {
    let Some(text) = get(environment, APPS) else { return };
    match serde_json::from_str::<Value>(text) {
        Ok(list @ Value::Array(_)) => draft.set("apps", list, Origin::Environment(APPS.to_owned())),
        Ok(_) => draft.problem(APPS, r#"expected a JSON array of apps: [{"id":"…","key":"…","secret":"…"}]"#),
        // The text holds secrets: serde_json names line, column and kind of the mistake, never the content.
        Err(why) => draft.problem(APPS, format!("is not valid JSON: {why}")),
    }
}

/// `TIDEWIRE_APP_ID/KEY/SECRET`: one app without a file, or the credentials of an app that the file describes.
fn apply_one_app(environment: &Environment, draft: &mut Draft) {
    let id = get(environment, APP_ID);
    let key = get(environment, APP_KEY).map(|key| (APP_KEY, key.to_owned()));
    let secret = read_secret(environment, draft);
    if id.is_none() && key.is_none() && secret.is_none() {
        return;
    }
    let index = match (id, draft.apps().len()) {
        (Some(id), _) => find_app(draft, id),
        (None, 1) => Some(0),
        (None, _) => return draft.problem(APP_ID, UNNAMED_APP),
    };
    if index.is_none() {
        let missing = [(APP_KEY, key.is_none()), (APP_SECRET, secret.is_none())];
        let mut absent = missing.iter().filter(|(_, absent)| *absent).peekable();
        if absent.peek().is_some() {
            absent.for_each(|(name, _)| draft.problem(name, format!("is not set, but {APP_ID} is")));
            return;
        }
    }
    let index = index.unwrap_or_else(|| draft.add_app());
    let id = id.map(|id| (APP_ID, id.to_owned()));
    for (field, given) in [("id", id), ("key", key), ("secret", secret)] {
        if let Some((name, value)) = given {
            draft.set_in_app(index, field, value, Origin::Environment(name.to_owned()));
        }
    }
}

const UNNAMED_APP: &str = "is not set, so there is no telling which app is meant";

fn find_app(draft: &Draft, id: &str) -> Option<usize> {
    let number_of = |app: &Value| app["id"].as_u64().map(|number| number.to_string());
    draft
        .apps()
        .iter()
        .position(|app| app["id"].as_str() == Some(id) || number_of(app).as_deref() == Some(id))
}

fn read_secret(environment: &Environment, draft: &mut Draft) -> Option<(&'static str, String)> {
    let direct = get(environment, APP_SECRET);
    if get(environment, APP_SECRET_FILE).is_none() {
        return direct.map(|secret| (APP_SECRET, secret.to_owned()));
    }
    let read = read_file(environment, draft, APP_SECRET, APP_SECRET_FILE);
    // Reported once: the secret is not also "missing".
    Some((APP_SECRET_FILE, read.unwrap_or_else(|| "unreadable".to_owned())))
}

/// What the file holds that variable `name` names; `direct` holds the secret itself.
fn read_file(environment: &Environment, draft: &mut Draft, direct: &str, name: &str) -> Option<String> {
    let path = get(environment, name)?;
    if get(environment, direct).is_some() {
        draft.problem(name, format!("and {direct} are both set, keep one"));
    }
    match fs::read_to_string(path) {
        // Editors and `echo` end files with a newline that is no part of the secret.
        Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(why) => {
            draft.problem(name, format!("{path}: {why}"));
            None
        }
    }
}

/// The variable that hosting platforms and Laravel set, where nothing else says whether there is a Redis. Called after
/// the flags.
pub fn apply_redis_url(environment: &Environment, draft: &mut Draft) {
    let Some(url) = get(environment, REDIS_URL) else { return };
    match draft.at("redis.url") {
        None => draft.set("redis.url", Value::from(url), Origin::Environment(REDIS_URL.to_owned())),
        Some(Value::String(empty)) if empty.is_empty() => {
            draft.warn(format!("{REDIS_URL} is set, but redis.url is \"\" in the file: this node is alone"));
        }
        Some(_) => {}
    }
}

/// Laravel's own variables, so that one `.env` serves both; only where nothing else defines an app.
fn apply_pusher_app(environment: &Environment, draft: &mut Draft) {
    const NAMES: [(&str, &str); 3] =
        [("id", "PUSHER_APP_ID"), ("key", "PUSHER_APP_KEY"), ("secret", "PUSHER_APP_SECRET")];
    if !draft.apps().is_empty() {
        return;
    }
    let (set, unset): (Vec<_>, Vec<_>) = NAMES.iter().partition(|(_, name)| get(environment, name).is_some());
    if !unset.is_empty() {
        if let Some((_, name)) = set.first() {
            let missing: Vec<&str> = unset.iter().map(|(_, name)| *name).collect();
            draft.warn(format!("{name} is set but {} is not: no app is made of it", missing.join(", ")));
        }
        return;
    }
    let index = draft.add_app();
    for (field, name) in NAMES {
        let value = get(environment, name).unwrap_or_default().to_owned();
        draft.set_in_app(index, field, value, Origin::Environment(name.to_owned()));
    }
}

/// `TIDEWIRE_APP_REPLAY`: `true`, `false`, or an object with rules as in the file, for the app that the other variables
/// name; for the only app there is; or for the built-in one.
fn apply_app_replay(environment: &Environment, draft: &mut Draft) {
    let Some(text) = get(environment, APP_REPLAY) else { return };
    let value = match draft.schema.app().property("replay") {
        Some(node) if !text.starts_with('{') => node.read_text(text),
        _ => match serde_json::from_str(text) {
            Ok(rules) => rules,
            Err(why) => return draft.problem(APP_REPLAY, format!("is not valid JSON: {why}")),
        },
    };
    let origin = Origin::Environment(APP_REPLAY.to_owned());
    let index = match (get(environment, APP_ID), draft.apps().len()) {
        (_, 0) => return draft.set_built_in_replay(value, origin),
        (Some(id), _) => find_app(draft, id),
        (None, 1) => Some(0),
        (None, _) => return draft.problem(APP_ID, UNNAMED_APP),
    };
    // An app that could not be made of the variables is a problem already.
    if let Some(index) = index {
        draft.set_in_app(index, "replay", value, origin);
    }
}

/// An app before anything is known about it.
pub fn blank_app() -> Value {
    json!({})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_of_kubernetes_are_not_settings() {
        for (name, value) in [
            ("TIDEWIRE_SERVICE_HOST", "10.0.0.1"),
            ("TIDEWIRE_SERVICE_PORT", "6001"),
            ("TIDEWIRE_SERVICE_PORT_HTTP", "6001"),
            ("TIDEWIRE_PORT", "tcp://10.0.0.1:6001"),
            ("TIDEWIRE_PORT_6001_TCP", "tcp://10.0.0.1:6001"),
            ("TIDEWIRE_PORT_6001_TCP_ADDR", "10.0.0.1"),
            ("TIDEWIRE_METRICS_PORT_9601_TCP_PROTO", "tcp"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in
            [("TIDEWIRE_PORT", "6001"), ("TIDEWIRE_SERVER__LISTEN", "tcp://x"), ("TIDEWIRE_APP_KEY", "k")]
        {
            assert!(!is_service_link(name, value), "{name}");
        }
    }
}
